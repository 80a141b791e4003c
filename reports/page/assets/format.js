// Elements and numbers. Text reaches the page through textContent alone, so nothing in a data set is ever markup.
const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// plotly takes some markup for its own.
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const minus = (text) => text.replace("-", "−");
const fixed = (value, digits) => minus(value.toFixed(digits).replace(/^-(0(\.0+)?)$/, "$1"));
const signed = (value, digits) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + fixed(value, digits);
// As many digits as the interval supports: two decimals where half of it is below 0.5 or an end would look like zero.
const digitsOf = (low, high) => ((high - low) / 2 < 0.5 || Math.min(Math.abs(low), Math.abs(high)) < 0.05 ? 2 : 1);
const pValue = (p) => (p < 0.001 ? "p < 0.001" : `p = ${p.toPrecision(2).replace(/^(\d)\.0$/, "$1")}`);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = () => document.documentElement.hasAttribute("data-dark");

function fillSelect(select, entries, value) {
  select.replaceChildren(...entries.map(([key, text]) => element("option", { value: key, textContent: text })));
  select.value = value;
}

// A row of real radio buttons that look like a switch.
function fillSwitch(fieldset, entries, value, changed) {
  fieldset.querySelectorAll("label").forEach((label) => label.remove());
  for (const [key, text, disabled] of entries) {
    const input = element("input", { type: "radio", name: fieldset.id, value: key, checked: key === value, disabled: Boolean(disabled) });
    input.addEventListener("change", () => changed(key));
    fieldset.append(element("label", {}, input, text));
  }
}
