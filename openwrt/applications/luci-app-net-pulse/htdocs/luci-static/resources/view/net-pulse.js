'use strict';
'require form';
'require poll';
'require rpc';
'require tools.widgets as widgets';
'require uci';
'require view';

/*
 * The settings of /etc/config/net-pulse, with a link to the page of Net-Pulse.
 * An empty field is not written: Net-Pulse uses its default or the value set on its page.
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

/* URL of the page: the address of LuCI, unless Net-Pulse listens only on other addresses. */
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
		: _('Not running: if it is enabled below, see the System Log') ];
}

function isSize(section_id, value) {
	const found = /^([1-9][0-9]{0,9})([KMG]?)(I?B)?$/.exec(value.toUpperCase());
	const bytes = found ? found[1] * Math.pow(1024, ' KMG'.indexOf(found[2] || ' ')) : 0;

	return value == '' || bytes >= 1048576 || _('Expecting: %s').format(_('a size of at least 1M, such as 32M'));
}

function isFile(section_id, value) {
	return value == '' || /^\/.*\/.*[^\/]$/.test(value) || _('Expecting: %s').format(_('the full path of a file that is not directly below /'));
}

/* Options: tab, widget, name, title, description, further properties of the widget. */
const options = () => [
	[ 'general', form.Flag, 'enabled', _('Enabled'), null,
		{ default: '1', rmempty: false } ],
	[ 'access', widgets.NetworkSelect, 'listen_interface', _('Listen on'), _('Networks from which the page can be reached.'),
		{ multiple: true, loopback: true, nocreate: true, default: 'lan' } ],
	[ 'access', form.Flag, 'listen_all', _('Listen everywhere'), _('Listen on all addresses instead: the firewall decides who can connect.'), {} ],

	/* made by cross/settings */
	[ 'access', form.DynamicList, 'host', _('Listen on addresses'), _('Listen only on these addresses, instead of the two options above.'),
		{ datatype: 'ipaddr("nomask")' } ],
	[ 'access', form.Value, 'port', _('Port'), _('Port of the page and the API.'),
		{ datatype: 'range(1024,65535)', placeholder: '8000' } ],
	[ 'access', form.DynamicList, 'allowed_host', _('Additional names'), _('Additional names of this router that browsers may use, besides its host name and addresses.'),
		{ datatype: 'hostname' } ],
	[ 'access', form.Flag, 'private', _('Private'), _('Require the access token for reading too, not only for changes. The command <code>service net-pulse token</code> prints the token.'), {} ],
	[ 'access', form.Flag, 'open', _('Open'), _('Allow changes without the access token to everyone who can reach the page.'), {} ],
	[ 'general', form.Value, 'interval', _('Interval'), _('Seconds between two samples.'),
		{ datatype: 'range(1,3600)', placeholder: '30' } ],
	[ 'general', form.Value, 'timezone', _('Time zone'), _('Time zone of days and months: a POSIX TZ string. Empty: the time zone of the system.'),
		{ placeholder: 'CET-1CEST,M3.5.0,M10.5.0/3' } ],
	[ 'general', form.ListValue, 'log_level', _('Log level'), _('Log verbosity.'),
		{ choices: { '': _('default'), 'error': null, 'warn': null, 'info': null, 'debug': null, 'trace': null } } ],
	[ 'interfaces', widgets.DeviceSelect, 'interface', _('Watch'), _('Watch only these devices, even if a rule ignores them; <code>*</code> is allowed. Empty: all that no rule ignores.'),
		{ multiple: true, noaliases: true } ],
	[ 'interfaces', form.DynamicList, 'ignore', _('Ignore'), _('Devices to ignore; <code>*</code> is allowed. With <code>!</code> in front, a device is watched even if a rule ignores it.'), {} ],
	[ 'interfaces', widgets.DeviceSelect, 'primary', _('Primary interface'), _('Primary device, usually the one towards the internet. The page shows its rate first. Empty: chosen by its traffic.'),
		{ noaliases: true } ],
	[ 'interfaces', form.ListValue, 'source', _('Counter source'), _('Kernel API to read counters from.'),
		{ choices: { '': _('default'), 'auto': null, 'getstats': null, 'getlink': null, 'sysfs': null } } ],
	[ 'storage', form.Value, 'database', _('Database file'), _('The database file, which holds the history. In the flash it survives reboots. Below /mnt, on a mounted disk, it does not wear the flash. Below /var it is in memory, and each reboot deletes it.'),
		{ placeholder: '/srv/net-pulse/net-pulse.db', validate: isFile } ],
	[ 'storage', form.ListValue, 'media', _('Save'), _('How often Net-Pulse saves. A power cut loses what is not saved yet; before a reboot Net-Pulse saves everything.'),
		{ choices: { '': _('default'), 'flash': _('every hour, for flash'), 'disk': _('every 5 minutes, for disks') } } ],
	[ 'storage', form.Value, 'flush', _('Seconds between two saves'), _('Save at this interval instead of the choice above.'),
		{ datatype: 'range(1,86400)' } ],
	[ 'storage', form.Value, 'max_size', _('Maximum size'), _('Maximum size of the database. When the database reaches it, the history of the finest resolution is deleted first. Backups contain the database if it is at its default path.'),
		{ placeholder: '32M', validate: isSize } ],
	/* end of what cross/settings makes */
];

return view.extend({
	load() {
		return Promise.all([ L.resolveDefault(callServices('net-pulse'), {}), uci.load('net-pulse') ]);
	},

	render([ services ]) {
		const map = new form.Map('net-pulse', _('Net-Pulse'), _('Traffic history of the network interfaces. Net-Pulse shows it on its own page.'));
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
