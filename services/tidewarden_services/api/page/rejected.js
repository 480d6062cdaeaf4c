// Readings that were refused: what, why, what to do, and how it came.
import { api } from "./api.js";
import { fill, h } from "./dom.js";
import { count, kind, timeElement } from "./format.js";

export class RejectedDialog {
  constructor(dialog) {
    this.dialog = dialog;
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  async open(reason) {
    if (!this.dialog.open) {
      fill(this.dialog, this.#head(), h("p.empty", null, "Loading…"));
      this.dialog.showModal();
    }
    try {
      this.#show(await api.rejected({ reason, limit: 200 }), reason);
    } catch (error) {
      fill(this.dialog, this.#head(), h("p.error", { role: "alert" }, `The list could not be loaded: ${error.message}`),
        h("button.small", { type: "button", onclick: () => this.open(reason) }, "Try again"));
    }
  }

  #head() {
    return h("div.head", null,
      h("h2", { id: "rejected-title" }, "Rejected readings"),
      h("span.grow"),
      h("button.quiet", { type: "button", "aria-label": "Close", onclick: () => this.dialog.close() }, "✕"));
  }

  #show({ rejected, counts }, reason) {
    const all = Object.entries(counts).sort((a, b) => b[1] - a[1]);
    const chip = (id, label, n) =>
      h("button.chip", { type: "button", "aria-pressed": String(id === reason), onclick: () => this.open(id) }, `${label} `, h("b", null, count(n)));
    fill(this.dialog, this.#head(),
      h("p.muted.intro", null, "Nothing is dropped silently: every reading that is refused is kept with its reason."),
      h("div.chips", null, chip(undefined, "all", all.reduce((n, [, m]) => n + m, 0)), all.map(([id, n]) => chip(id, kind(id), n))),
      rejected.length === 0 ? h("p.empty", null, "Nothing was rejected.") : h("ul.list", null, rejected.map(row)));
  }
}

function row(r) {
  const where = [r.tenant, r.cluster, r.node, r.metric].filter(Boolean).join(" / ");
  return h("li.item.rejection", null,
    h("div.body", null,
      h("div.title", null, h("span.badge", { dataset: { tone: "plain" } }, kind(r.reason)), h("span", null, r.detail)),
      h("div.meta", null,
        h("span", null, timeElement(r.received_at)),
        h("span", null, `${r.stream} / ${r.source}`),
        where ? h("span", null, where) : null,
        r.origin ? h("span", null, r.origin) : null),
      r.raw ? h("code.raw", null, r.raw.length > 400 ? `${r.raw.slice(0, 400)}…` : r.raw) : null));
}
