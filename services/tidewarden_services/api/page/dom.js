// Building elements. Text always goes in as text, never as HTML: names come from outside.

/** An element: `h("a.link", {href, onclick, dataset}, "text", child, null)`; classes after dots. */
export function h(spec, props, ...children) {
  const [tag, ...classes] = spec.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else if (name in element && typeof value === "boolean") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Replace all children. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Set text only where it differs, so that nothing repaints or is read aloud for nothing. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

const focusables = (element) => [...element.querySelectorAll("a, button, input")];

/**
 * A list that keeps the element of an item as long as the item's version stays, so that focus,
 * open forms and scroll positions survive live updates.
 * items: [{id, version}], render(item) → element.
 */
export function keyed(container, items, render) {
  const old = container.keyed || new Map();
  const next = new Map();
  let place = container.firstElementChild;
  for (const item of items) {
    let entry = old.get(item.id);
    if (!entry || entry.version !== item.version) {
      const element = render(item);
      if (entry) {
        if (place === entry.element) place = element;
        const focused = focusables(entry.element).indexOf(document.activeElement);
        entry.element.replaceWith(element);
        if (focused >= 0) focusables(element)[focused]?.focus({ preventScroll: true });
      }
      entry = { version: item.version, element };
    }
    next.set(item.id, entry);
    if (entry.element === place) place = place.nextElementSibling;
    else container.insertBefore(entry.element, place);
  }
  for (const [id, entry] of old) if (!next.has(id)) entry.element.remove();
  container.keyed = next;
}

/** Radio buttons that look like one segmented control; arrow keys move, as in every radio group. */
export function segments(container, options, value, onChange) {
  const choose = (picked, focus) => {
    for (const button of container.children) {
      const on = button.dataset.value === picked;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
      if (on && focus) button.focus();
    }
  };
  fill(
    container,
    options.map(([id, label, title]) =>
      h("button", { type: "button", role: "radio", title, dataset: { value: id }, onclick: () => { choose(id); onChange(id); } }, label),
    ),
  );
  container.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const ids = options.map(([id]) => id);
    const now = [...container.children].findIndex((b) => b.getAttribute("aria-checked") === "true");
    const picked = ids[(Math.max(now, 0) + step + ids.length) % ids.length];
    choose(picked, true);
    onChange(picked);
  };
  choose(value);
  return choose;
}
