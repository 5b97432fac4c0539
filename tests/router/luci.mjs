// Runs the LuCI view with test doubles of LuCI's modules, and prints what the view did as JSON.
// node luci.mjs VIEW SCENARIO, where SCENARIO is {uci, hostname, services, values: {option: [text...]}}.
import { readFileSync } from 'node:fs';

const [file, scenario] = [process.argv[2], JSON.parse(process.argv[3])];
const source = readFileSync(file, 'utf8');

String.prototype.format = function (...words) {
	return this.replace(/%s/g, () => words.shift());
};

const seen = { options: [], rpc: [], polls: 0 };
const text = (node) =>
	Array.isArray(node) ? node.map(text).join('') : typeof node === 'string' ? node : text(node.children);
const kinds = (names) => Object.fromEntries(names.map((name) => [name, name]));

class Section {
	tabs = [];
	tab(name) {
		this.tabs.push(name);
	}
	taboption(tab, widget, name, title, description) {
		if (!this.tabs.includes(tab)) throw new Error(`no tab ${tab}`);
		if (!widget) throw new Error(`${name} has no widget`);
		const option = { tab, widget, name, title, description, choices: [], value: (key) => option.choices.push(key) };
		seen.options.push(option);
		return option;
	}
}
class Map {
	constructor(config) {
		seen.config = config;
	}
	section(widget, name, type) {
		seen.section = [widget, name, type];
		return new Section();
	}
	render() {
		return 'rendered';
	}
}
const modules = {
	form: { Map, ...kinds(['NamedSection', 'Flag', 'Value', 'ListValue', 'DynamicList', 'DummyValue']) },
	widgets: kinds(['NetworkSelect', 'DeviceSelect']),
	poll: { add: () => (seen.polls += 1) },
	rpc: { declare: (call) => (seen.rpc.push([call.object, call.method]), async () => scenario.services) },
	uci: { load: async () => {}, get: (config, section, option) => scenario.uci[option] },
	view: { extend: (view) => view },
	L: { toArray: (value) => (value == null ? [] : [value].flat()), resolveDefault: (promise) => promise, dom: {} },
	E: (name, attributes, children) => ({ name, attributes, children }),
	_: (words) => words,
	window: { location: { hostname: scenario.hostname } },
	document: {},
};
const view = new Function(...Object.keys(modules), source)(...Object.values(modules));
seen.rendered = view.render(await view.load());

const status = seen.options.find((option) => option.name === '_status').renderWidget();
seen.status = text(status);
seen.link = status.children.find((child) => child.name === 'a')?.attributes.href;
seen.verdicts = Object.entries(scenario.values ?? {}).map(([name, values]) => {
	const option = seen.options.find((known) => known.name === name);
	return [name, values.map((value) => option.validate('main', value) === true)];
});
console.log(JSON.stringify(seen));
