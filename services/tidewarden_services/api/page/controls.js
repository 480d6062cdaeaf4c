// The small controls around the lists and the map.
import { fill, h, text } from "./dom.js";
import { GLYPH } from "./format.js";

/** Tabs and their panels; arrow keys move between them. */
export function tabs(all) {
  const choose = (tab) => {
    for (const other of all) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
  };
  for (const tab of all) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowRight" && event.key !== "ArrowLeft") return;
      const other = all[1 - all.indexOf(tab)];
      choose(other);
      other.focus();
    });
  }
}

/** A toggle for each severity; `shown` is the set that they change. */
export function severityFilters(container, shown, onChange) {
  fill(container, ["critical", "warning", "info"].map((name) =>
    h("button.severity", {
      type: "button", "aria-pressed": "true", "aria-label": `${name} shown`, title: name, dataset: { severity: name },
      onclick: (event) => {
        const on = !shown.has(name);
        if (on) shown.add(name);
        else shown.delete(name);
        event.currentTarget.setAttribute("aria-pressed", String(on));
        onChange();
      },
    }, GLYPH[name])));
}

/** Automatic, light, dark, in turn; see theme.js. */
export function themeButton(button) {
  const looks = { auto: ["◐", "automatic"], light: ["☀", "light"], dark: ["☾", "dark"] };
  const show = () => {
    const [glyph, name] = looks[window.tidewardenTheme.read()];
    text(button, glyph);
    button.title = `Colour theme: ${name}`;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(looks);
    window.tidewardenTheme.choose(names[(names.indexOf(window.tidewardenTheme.read()) + 1) % names.length]);
    show();
  });
  show();
}

/** What the colours of the map mean. */
export function legend(container) {
  const steps = Array.from({ length: 11 }, (_, i) => h("i", { dataset: { level: i }, title: `score ${(i / 10).toFixed(1)}` }));
  fill(container, h("span", null, "calm"), h("span.scale", null, steps), h("span", null, "critical"),
    h("span.note", null, "▲ from 0.60"), h("span.note", null, "◆ from 0.90"),
    h("span.note", null, h("i.mark"), "open anomaly"), h("span.note", null, h("i", { dataset: { level: "none" } }), "learning"));
}
