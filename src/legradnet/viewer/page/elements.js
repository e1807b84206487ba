// Elements of the page. Text is always text: nothing that a file or a reader named is ever read as HTML.

/** The element with this id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. `attributes` are set as they are named, true and false as there or not; `on` is {event: listener};
 * children are elements or text, and those that are null or false are left out.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  const { on = {}, ...others } = attributes;
  for (const [name, value] of Object.entries(others)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  for (const [event, listener] of Object.entries(on)) made.addEventListener(event, listener);
  made.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return made;
}

/** Put these children where others were. */
export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== false && child !== undefined));
}

/** Options of a select: [value, words] each, with `chosen` selected where it is one of them. */
export function setOptions(select, options, chosen) {
  const made = options.map(([value, words]) => element("option", { value }, words));
  fill(select, ...made);
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

const announcer = byId("announcer");

/** Have a screen reader say this, once what it is saying is said. */
export function announce(words) {
  announcer.textContent = "";
  requestAnimationFrame(() => (announcer.textContent = words));
}

/** Whether this key press is meant for a field in which a person types or chooses. */
export function isTyping(event) {
  return Boolean(event.target.closest?.("input:not([type=checkbox]):not([type=range]), textarea, select, dialog[open]"));
}
