// How numbers, times and names are written for people. Times are local, with UTC on hover.
import { h } from "./dom.js";

const two = (n) => String(n).padStart(2, "0");

/** 1234567 → "1.23 M"; small numbers stay whole. */
export function count(n) {
  if (n === null || n === undefined || Number.isNaN(n)) return "–";
  const a = Math.abs(n);
  if (a >= 1e9) return `${(n / 1e9).toFixed(2)} G`;
  if (a >= 1e6) return `${(n / 1e6).toFixed(2)} M`;
  if (a >= 1e4) return `${(n / 1e3).toFixed(1)} k`;
  return Math.round(n).toLocaleString("en-GB").replaceAll(",", " ");
}

/** A measured value with about four significant digits. */
export function value(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "missing";
  const a = Math.abs(v);
  if (a !== 0 && (a >= 1e7 || a < 1e-3)) return v.toExponential(2);
  if (a >= 1000) return Math.round(v).toLocaleString("en-GB").replaceAll(",", " ");
  return String(Number(v.toPrecision(a >= 100 ? 4 : 3)));
}

/** Two decimals, cut and not rounded: 0.896 must not read as 0.90, from where on a score is critical. */
export const score = (s) => (s === null || s === undefined ? "–" : (Math.floor(Math.min(1, s) * 100 + 1e-9) / 100).toFixed(2));

/** Class of a score for colouring: 0 to 10, or "none" where there is no score yet. */
export const level = (s) => (s === null || s === undefined ? "none" : String(Math.max(0, Math.min(10, Math.floor(s * 10 + 1e-9)))));

/** Rarity in words, from score = −log10(p) / 6. */
export function rarity(s) {
  if (!s || s < 0.1) return "ordinary";
  if (s >= 1) return "rarer than 1 in 1 000 000";
  return `about 1 in ${Math.round(Number((10 ** (6 * s)).toPrecision(2))).toLocaleString("en-GB").replaceAll(",", " ")}`;
}

export function severityOf(s) {
  if (s >= 0.9) return "critical";
  return s >= 0.6 ? "warning" : "info";
}

export const GLYPH = { critical: "◆", warning: "▲", info: "●", resolved: "✓", calm: "✓", unknown: "…" };

/** 543000 → "9 min". */
export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return `${s} s`;
  const min = Math.round(s / 60);
  if (min < 90) return `${min} min`;
  const hours = Math.floor(min / 60);
  if (hours < 48) return min % 60 ? `${hours} h ${min % 60} min` : `${hours} h`;
  return `${Math.round(hours / 24)} d`;
}

/** Local time; with the date where it is not today. */
export function time(ms, { seconds = true, date = "auto" } = {}) {
  const d = new Date(ms);
  const clock = `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ""}`;
  const today = new Date().toDateString() === d.toDateString();
  if (date === "never" || (date === "auto" && today)) return clock;
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock}`;
}

export const utc = (ms) => `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** A <time> in local zone whose title says UTC. */
export function timeElement(ms, options) {
  if (ms === null || ms === undefined) return h("span.muted", null, "–");
  return h("time", { datetime: new Date(ms).toISOString(), title: utc(ms) }, time(ms, options));
}

/** Local wall time as Plotly reads it: its date axes know no zones. */
export function plotTime(ms) {
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/** The reverse of plotTime, for ranges that Plotly reports. */
export const fromPlotTime = (s) => (typeof s === "number" ? s : new Date(String(s).replace(" ", "T")).getTime());

export const kind = (k) => String(k || "").replaceAll("_", " ");

/** "95–130" or "" where there is no band. */
export const band = (lower, upper) =>
  lower === null || lower === undefined || upper === null || upper === undefined ? "" : `${value(lower)}–${value(upper)}`;

/** A coloured pill with a score. */
export const pill = (s) => h("span.pill", { dataset: { level: level(s) }, title: s === null || s === undefined ? "no score yet" : rarity(s) }, score(s));

export const seriesPath = (k) => [k.tenant, k.cluster, k.node, k.metric].join("/");

/** Deep link to a chart, with the range around what is to be seen. */
export function seriesLink(path, { from, to, detector } = {}) {
  const query = new URLSearchParams();
  if (from !== undefined) query.set("from", Math.round(from));
  if (to !== undefined) query.set("to", Math.round(to));
  if (detector) query.set("detector", detector);
  const tail = query.size ? `?${query}` : "";
  return `#/series/${path.split("/").map(encodeURIComponent).join("/")}${tail}`;
}

/** The range in which an anomaly is best seen: itself with five times its length around, at least 2 h. */
export function rangeAround(onset, end) {
  const margin = Math.max(2 * 3600e3, 5 * (end - onset));
  return { from: onset - margin, to: end + margin };
}
