// The line on top: what is wrong now, where, and why.
import { alertLink, isActive, order } from "./alerts.js";
import { fill, h, text } from "./dom.js";
import { GLYPH, kind, score, seriesLink, seriesPath } from "./format.js";

/** One sentence: what is wrong now, where, and why. */
export function drawVerdict(box, facts) {
  const version = JSON.stringify(facts);
  if (box.version === version) return;
  box.version = version;
  box.dataset.severity = facts.severity;
  document.title = facts.count ? `(${facts.count}) Tidewarden` : "Tidewarden";
  text(box.querySelector(".glyph"), GLYPH[facts.severity] ?? "…");
  text(box.querySelector("strong"), facts.headline); // the only part that is read aloud when it changes
  const what = box.querySelector(".what");
  const link = what.querySelector("a");
  if (link && facts.link) {
    link.href = facts.link; // the same element, so that the focus stays on it
    text(link, facts.detail);
  } else fill(what, facts.link ? h("a", { href: facts.link }, facts.detail) : facts.detail);
  text(box.querySelector(".why"), facts.why ?? "");
}

/**
 * The facts of that sentence. state: statistics, health, loaded, failure; nodes: how many there are;
 * scored: how many of them have a score.
 * Returns {severity, headline, detail, why, link, count}.
 */
export function verdict({ state, alerts, anomalies, nodes, scored }) {
  if (!state.loaded) {
    return { severity: "unknown", headline: state.failure ? "Nothing is known yet." : "Asking the server what it knows…", detail: state.failure ?? "" };
  }
  const firing = alerts.filter((a) => a.state === "firing" && isActive(a)).sort(order);
  const failing = Object.entries(state.health?.checks || {}).filter(([, check]) => check.status !== "ok");
  if (firing.length) {
    const [worst] = firing;
    const waiting = firing.filter((a) => !a.acknowledged).length;
    const headline = `${firing.length} ${firing.length === 1 ? "alert" : "alerts"} firing${waiting === firing.length ? "" : `, ${waiting} not acknowledged`}.`;
    return { severity: worst.severity, count: waiting, headline, detail: `Worst: ${worst.title}`, why: worst.summary.split("\n")[0], link: alertLink(worst, null) };
  }
  if (failing.length) {
    return { severity: "warning", headline: "Tidewarden itself is degraded.", detail: failing.map(([name, check]) => `${name}: ${check.detail}`).join(" · ") };
  }
  if (nodes === 0) return { severity: "unknown", headline: "Waiting for readings.", detail: "" };
  const open = anomalies.filter((a) => a.state === "open" && !a.suppressed).sort((a, b) => b.peak_score - a.peak_score);
  if (open.length) {
    const [worst] = open;
    return {
      severity: "info", headline: `No alert. ${open.length} open ${open.length === 1 ? "anomaly" : "anomalies"} below the bar.`,
      detail: `Most unusual: ${worst.node} ${worst.metric}, ${kind(worst.kind)}, score ${score(worst.peak_score)}`, link: seriesLink(seriesPath(worst)),
    };
  }
  return quiet({ detectors: state.statistics?.detectors || [], nodes, scored });
}

/** Nothing is wrong, as far as anybody can tell yet. */
function quiet({ detectors, nodes, scored }) {
  if (detectors.length === 0) {
    return { severity: "unknown", headline: "Nothing is scored.", detail: "No detector is running: add an AnomalyDetector resource." };
  }
  if (scored === 0) {
    const [first] = detectors.filter((d) => d.series > 0);
    return { severity: "unknown", headline: "Learning what is normal.", detail: first ? `${first.name}: ${first.message}` : "Readings arrive and are kept; the detectors are starting (the very first start compiles them, about a minute)." };
  }
  const rest = nodes - scored;
  return { severity: "calm", headline: "All calm.", detail: rest ? `${scored} nodes as expected, ${rest} still learning.` : `${nodes} nodes as expected.` };
}
