'use strict';
'require form';
'require poll';
'require rpc';
'require tools.widgets as widgets';
'require uci';
'require view';

/*
 * The settings of /etc/config/net-pulse, and the way to the page of Net-Pulse itself, which has everything else.
 * What is left empty here is not written: then it is Net-Pulse's default, or what was set on its page.
 */

const callServices = rpc.declare({
	object: 'rc',
	method: 'list',
	params: [ 'name' ],
	expect: { '': {} }
});

function listed(option) {
	return L.toArray(uci.get('net-pulse', 'main', option));
}

/* Where this browser finds the page: at the address that it found LuCI at, unless others alone are listened on. */
function address() {
	const hosts = listed('host');
	const here = window.location.hostname;
	const everywhere = hosts.some((host) => host == '0.0.0.0' || host == '::');
	const host = (!hosts.length || everywhere || hosts.includes(here)) ? here : hosts[0];

	return 'http://%s:%s/'.format(host.includes(':') && !host.startsWith('[') ? '[%s]'.format(host) : host,
		uci.get('net-pulse', 'main', 'port') || '8000');
}

function status(services) {
	const service = services['net-pulse'] || {};

	if (service.running)
		return [ _('Running'), ': ', E('a', { 'href': address(), 'target': '_blank', 'rel': 'noreferrer' }, [ address() ]) ];

	return [ service.enabled === false ? _('Not running, and not started at boot: see System, Startup')
		: _('Not running: if it is enabled below, the System Log says why') ];
}

function isSize(section_id, value) {
	const found = /^([1-9][0-9]{0,9})([KMG]?)(I?B)?$/.exec(value.toUpperCase());
	const bytes = found ? found[1] * Math.pow(1024, ' KMG'.indexOf(found[2] || ' ')) : 0;

	return value == '' || bytes >= 1048576 || _('Expecting: %s').format(_('a size of at least 1M, such as 32M'));
}

function isFile(section_id, value) {
	return value == '' || /^\/.*\/.*[^\/]$/.test(value) || _('Expecting: %s').format(_('the full path of a file in a directory of its own'));
}

/* Each option once: its tab, widget, name, title and description, and whatever else the widget takes. */
const options = () => [
	[ 'general', form.Flag, 'enabled', _('Enabled'), null,
		{ default: '1', rmempty: false } ],
	[ 'access', widgets.NetworkSelect, 'listen_interface', _('Listen on'), _('Networks from which the page can be reached.'),
		{ multiple: true, loopback: true, nocreate: true, default: 'lan' } ],
	[ 'access', form.Flag, 'listen_all', _('Listen everywhere'), _('On all addresses, in place of the above: the firewall decides who gets through.'), {} ],

	/* made by cross/settings */
	[ 'access', form.DynamicList, 'host', _('Listen on addresses'), _('These alone, in place of both.'),
		{ datatype: 'ipaddr("nomask")' } ],
	[ 'access', form.Value, 'port', _('Port'), null,
		{ datatype: 'range(1024,65535)', placeholder: '8000' } ],
	[ 'access', form.DynamicList, 'allowed_host', _('Further names'), _('Names for this router that browsers may use, beside its host name and addresses.'),
		{ datatype: 'hostname' } ],
	[ 'access', form.Flag, 'private', _('Private'), _('Ask for the access token for reading too. The command <code>service net-pulse token</code> prints it.'), {} ],
	[ 'access', form.Flag, 'open', _('Open'), _('Let everybody who can reach the page change things, without the token.'), {} ],
	[ 'general', form.Value, 'interval', _('Interval'), _('Seconds between two samples.'),
		{ datatype: 'range(1,3600)', placeholder: '30' } ],
	[ 'general', form.Value, 'timezone', _('Time zone'), _('For days and months: a POSIX string. Empty: that of the system.'),
		{ placeholder: 'CET-1CEST,M3.5.0,M10.5.0/3' } ],
	[ 'general', form.ListValue, 'log_level', _('Log level'), null,
		{ choices: { '': _('default'), 'error': null, 'warn': null, 'info': null, 'debug': null, 'trace': null } } ],
	[ 'interfaces', widgets.DeviceSelect, 'interface', _('Watch'), _('These devices alone, <code>*</code> allowed. Empty: all that matter.'),
		{ multiple: true, noaliases: true } ],
	[ 'interfaces', form.DynamicList, 'ignore', _('Leave out'), _('Devices to leave out, <code>*</code> allowed, or with <code>!</code> in front to keep.'), {} ],
	[ 'interfaces', widgets.DeviceSelect, 'primary', _('Headline'), _('The device of the headline figure. Empty: the one towards the internet is found.'),
		{ noaliases: true } ],
	[ 'interfaces', form.ListValue, 'source', _('Counters'), _('Where they are read.'),
		{ choices: { '': _('default'), 'auto': null, 'getstats': null, 'getlink': null, 'sysfs': null } } ],
	[ 'storage', form.Value, 'database', _('History'), _('File of the history. In the flash it survives reboots; below /mnt it spares the flash, on a disk that is mounted there; below /var it costs no wear, and each reboot begins a new one.'),
		{ placeholder: '/srv/net-pulse/net-pulse.db', validate: isFile } ],
	[ 'storage', form.ListValue, 'media', _('Saved'), _('How often. A power cut loses what was not saved, a reboot loses nothing.'),
		{ choices: { '': _('default'), 'flash': _('every hour, for flash'), 'disk': _('every five minutes, for disks') } } ],
	[ 'storage', form.Value, 'flush', _('Seconds between two saves'), _('In place of the above.'),
		{ datatype: 'range(1,86400)' } ],
	[ 'storage', form.Value, 'max_size', _('Largest size'), _('The history never grows past this: the finest is given up first. At its default place it is a part of backups.'),
		{ placeholder: '32M', validate: isSize } ],
	/* end of what cross/settings makes */
];

return view.extend({
	load() {
		return Promise.all([ L.resolveDefault(callServices('net-pulse'), {}), uci.load('net-pulse') ]);
	},

	render([ services ]) {
		const map = new form.Map('net-pulse', _('Net-Pulse'), _('Tells where the bandwidth went, on a page of its own.'));
		const section = map.section(form.NamedSection, 'main', 'net-pulse');

		section.tab('general', _('General'));
		section.tab('storage', _('Storage'));
		section.tab('access', _('Access'));
		section.tab('interfaces', _('Interfaces'));

		const line = section.taboption('general', form.DummyValue, '_status', _('Status'));
		line.renderWidget = () => E('div', { 'id': 'net-pulse-status' }, status(services));

		for (const [ tab, widget, name, title, description, { choices, ...more } ] of options()) {
			const option = section.taboption(tab, widget, name, title, description);

			Object.assign(option, more);

			for (const choice in choices)
				option.value(choice, choices[choice] || choice);
		}

		poll.add(() => L.resolveDefault(callServices('net-pulse'), {}).then((services) => {
			const node = document.getElementById('net-pulse-status');

			if (node)
				L.dom.content(node, status(services));
		}));

		return map.render();
	}
});
