// The list of alerts, with acknowledging in place, and the list of anomalies beside it.
import { fill, h, keyed, text } from "./dom.js";
import { GLYPH, duration, kind, pill, rangeAround, seriesLink, seriesPath, timeElement } from "./format.js";

const RANK = { critical: 0, warning: 1, info: 2 };
const STATE_RANK = { firing: 0, pending: 1, resolved: 2 };
const FOLDED = 100; // items of a folded section at most; the API has them all
const NAME_KEY = "tidewarden.name";

/** The name that this person gave when acknowledging, or "". */
export const remembered = () => {
  try {
    return localStorage.getItem(NAME_KEY) || "";
  } catch {
    return "";
  }
};

/** Not over, and not kept from people by a budget or a maintenance window. */
export const isActive = (alert) => alert.state !== "resolved" && !alert.suppressed_by;

/** What is wrong now comes first: firing, then not yet acknowledged, then severity, then the newest. */
export function order(a, b) {
  return (
    STATE_RANK[a.state] - STATE_RANK[b.state] ||
    (a.state === "resolved" ? 0 : Number(Boolean(a.acknowledged)) - Number(Boolean(b.acknowledged))) ||
    (a.state === "resolved" ? 0 : RANK[a.severity] - RANK[b.severity]) ||
    b.updated_at - a.updated_at
  );
}

/** Chart of the worst series of an alert, at the time of the alert. */
export function alertLink(alert, now) {
  const path = alert.series[0];
  if (!path) return null;
  return seriesLink(path, rangeAround(alert.started_at, alert.resolved_at ?? Math.max(now ?? 0, alert.updated_at)));
}

function fold(label, open) {
  const head = h("summary", null, label);
  const list = h("ul.list");
  return { label, head, list, element: h("details.fold", { hidden: true, open }, head, list) };
}

export class AlertList {
  /** acknowledge(alert, by, note) → promise; now(tenant) → newest event time, ms, or undefined. */
  constructor(container, { acknowledge, now }) {
    this.container = container;
    this.acknowledge = acknowledge;
    this.now = now;
    this.forms = new Set(); // ids of alerts whose form is open
    this.errors = new Map(); // id → what went wrong
    this.empty = h("p.empty", { hidden: true });
    this.list = h("ul.list");
    this.folds = { held: fold("Held back: over budget or in maintenance", false), resolved: fold("Resolved", true) };
    fill(container, this.empty, this.list, this.folds.held.element, this.folds.resolved.element);
  }

  show(alerts, { empty }) {
    const active = alerts.filter(isActive).sort(order);
    const held = alerts.filter((alert) => alert.state !== "resolved" && alert.suppressed_by).sort(order);
    const over = alerts.filter((alert) => alert.state === "resolved").sort(order);
    this.alerts = alerts;
    this.empty.hidden = active.length > 0;
    fill(this.empty, empty);
    keyed(this.list, active.map((alert) => this.#versioned(alert)), (item) => this.#item(item.alert));
    for (const element of this.list.children) text(element.querySelector(".length"), this.#length(element.alert));
    for (const [{ element, head, label, list }, items] of [[this.folds.held, held], [this.folds.resolved, over]]) {
      element.hidden = items.length === 0;
      text(head, `${label} (${items.length})`);
      keyed(list, items.slice(0, FOLDED).map((alert) => this.#versioned(alert)), (item) => this.#item(item.alert));
    }
  }

  #versioned(alert) {
    const form = this.forms.has(alert.id);
    // An open form is left alone while somebody types; the alert's own facts can wait that long.
    const facts = form ? "form" : `${alert.revision}|${alert.state}|${alert.acknowledged?.at ?? ""}|${alert.acknowledged?.sending ?? ""}`;
    return { id: alert.id, version: `${facts}|${this.errors.get(alert.id) ?? ""}`, alert };
  }

  #redraw() {
    this.show(this.alerts, { empty: [...this.empty.childNodes] });
  }

  #item(alert) {
    const link = alertLink(alert, this.now(alert.tenant));
    const over = alert.state === "resolved";
    const item = h("li.item", { dataset: { severity: alert.severity, state: alert.state, acknowledged: Boolean(alert.acknowledged), id: alert.id } },
      h("span.glyph", { role: "img", "aria-label": `${alert.severity}, ${alert.state}`, title: `${alert.severity}, ${alert.state}` }, over ? GLYPH.resolved : GLYPH[alert.severity]),
      h("div.body", null,
        h("div.title", null, link ? h("a", { href: link }, alert.title) : alert.title),
        h("div.meta", null,
          h("span.state", null, alert.state),
          h("span", null, timeElement(alert.started_at), " for ", h("span.length", null, this.#length(alert))),
          h("span", null, `${alert.anomaly_count} ${alert.anomaly_count === 1 ? "anomaly" : "anomalies"}`),
          h("span", null, alert.kinds.slice(0, 3).map(kind).join(", ")),
          alert.flapping ? h("span.flag", { title: "Fires and resolves in quick turns" }, "flapping") : null,
          alert.suppressed_by ? h("span.flag", { title: "Not sent to receivers" }, `held back: ${alert.suppressed_by}`) : null),
        alert.summary ? h("p.summary", null, alert.summary) : null,
        alert.series.length > 1 ? seriesLinks(alert) : null,
        this.#acknowledgement(alert)));
    item.alert = alert;
    return item;
  }

  #length(alert) {
    return duration((alert.resolved_at ?? Math.max(this.now(alert.tenant) ?? 0, alert.updated_at)) - alert.started_at);
  }

  #acknowledgement(alert) {
    const error = this.errors.get(alert.id);
    const problem = error ? h("p.error", { role: "alert" }, error) : null;
    if (alert.acknowledged) {
      const { by, at, note, sending } = alert.acknowledged;
      return h("p.acknowledged", null, sending ? "Acknowledging… " : `✓ ${by}, `, sending ? null : timeElement(at, { seconds: false }), note ? ` – “${note}”` : "");
    }
    if (this.forms.has(alert.id)) return [problem, this.#form(alert)];
    if (alert.state === "resolved") return problem;
    return [
      problem,
      h("button.small.acknowledge", {
        type: "button",
        "aria-label": `Acknowledge: ${alert.title}`,
        onclick: () => {
          this.forms.add(alert.id);
          this.#redraw();
          const form = this.container.querySelector(`form[data-id="${CSS.escape(alert.id)}"]`);
          (form.by.value ? form.note : form.by).focus();
        },
      }, "Acknowledge"),
    ];
  }

  #form(alert) {
    const close = () => {
      this.forms.delete(alert.id);
      this.#redraw();
      this.container.querySelector(`li[data-id="${CSS.escape(alert.id)}"] .acknowledge`)?.focus();
    };
    const submit = async (event) => {
      event.preventDefault();
      const by = event.target.by.value.trim();
      const note = event.target.note.value.trim();
      try {
        localStorage.setItem(NAME_KEY, by);
      } catch {
        // The name is asked for again next time.
      }
      this.forms.delete(alert.id);
      this.errors.delete(alert.id);
      try {
        await this.acknowledge(alert, by, note); // shows it at once and takes it back on failure
      } catch (error) {
        this.errors.set(alert.id, `Not acknowledged: ${error.message} Please try again.`);
        this.#redraw();
      }
    };
    return h("form.ack", { dataset: { id: alert.id }, onsubmit: submit, onkeydown: (event) => event.key === "Escape" && close() },
      h("input", { name: "by", required: true, maxlength: 80, placeholder: "Your name", "aria-label": "Your name", value: remembered(), autocomplete: "name" }),
      h("input", { name: "note", maxlength: 500, placeholder: "Note (optional)", "aria-label": "Note, optional" }),
      h("button.small.primary", { type: "submit" }, "Acknowledge"),
      h("button.small", { type: "button", onclick: close }, "Cancel"));
  }
}

function seriesLinks(alert) {
  const range = rangeAround(alert.started_at, alert.resolved_at ?? alert.updated_at);
  return h("div.series-links", null,
    alert.series.slice(0, 4).map((path) => h("a", { href: seriesLink(path, range), title: path }, path.split("/").slice(2).join(" / "))),
    alert.series.length > 4 ? h("span.muted", null, `+ ${alert.series.length - 4}`) : null);
}

/** One line of an anomaly: what, where, how rare, since when, why. */
export function anomalyItem(anomaly, { where = true, said, say } = {}) {
  const range = rangeAround(anomaly.onset, anomaly.end);
  return h("li.item", { dataset: { severity: anomaly.severity, state: anomaly.state, id: anomaly.id } },
    h("span.glyph", { role: "img", "aria-label": anomaly.severity, title: anomaly.severity }, GLYPH[anomaly.severity]),
    h("div.body", null,
      h("div.title", null,
        h("a", { href: seriesLink(seriesPath(anomaly), { ...range, detector: anomaly.detector }) },
          where ? `${anomaly.node} / ${anomaly.metric}` : `${kind(anomaly.kind)} ${anomaly.direction === "none" ? "" : anomaly.direction}`),
        pill(anomaly.peak_score)),
      h("div.meta", null,
        where ? h("span", null, `${anomaly.tenant} / ${anomaly.cluster}`) : null,
        where ? h("span", null, kind(anomaly.kind)) : null,
        h("span", null, timeElement(anomaly.onset), ` for ${duration(anomaly.end - anomaly.onset)}`),
        anomaly.state === "open" ? h("span.state", null, "open") : null,
        anomaly.suppressed ? h("span.flag", { title: "Feedback called such anomalies of this series wrong: nobody is alerted" }, "held back by feedback") : null,
        where ? null : h("span", null, anomaly.detector)),
      h("p.summary", null, anomaly.explanation),
      say ? feedbackButtons(said, say) : null));
}

/** Whether the anomaly was one. said: {verdict, by, error} or undefined; say(verdict). */
function feedbackButtons(said, say) {
  const button = (verdict, label, title) => h("button.small", { type: "button", title, onclick: () => say(verdict) }, label);
  const verdict = said?.verdict;
  return h("p.feedback", { role: "group", "aria-label": "Was this an anomaly?" },
    said?.error ? h("span.error", { role: "alert" }, said.error, " ") : null,
    verdict === "right" || verdict === "wrong"
      ? [h("span", null, `Marked ${verdict} by ${said.by} `), button("revoke", "Undo", "As if nothing had been said")]
      : [button("right", "Right", "This was an anomaly"), " ", button("wrong", "Wrong", "Not an anomaly: alert of such ones of this series only when they are rarer")]);
}

export class AnomalyList {
  constructor(container) {
    this.empty = h("p.empty", { hidden: true });
    this.list = h("ul.list");
    fill(container, this.empty, this.list);
  }

  show(anomalies, { empty, limit = 150 }) {
    this.empty.hidden = anomalies.length > 0;
    fill(this.empty, empty);
    const shown = anomalies.slice(0, limit).map((anomaly) => ({ id: anomaly.id, version: anomaly.revision, anomaly }));
    keyed(this.list, shown, (item) => anomalyItem(item.anomaly));
  }
}
