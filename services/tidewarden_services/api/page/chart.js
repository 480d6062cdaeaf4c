// Drawing one series with Plotly: value, expected, band, anomalies, missing readings, score below.
// Only basic SVG traces: they need neither eval nor WebGL, so the page's strict CSP holds.
import { band, fromPlotTime, kind, plotTime, rarity, score, time, utc, value } from "./format.js";

const SOURCE = "/static/vendor/plotly.min.js";
const LONGEST_EXPLANATION = 46; // characters a line of the hover label
let loading = null;

/** The chart library, fetched once, when first needed. */
export function loadPlotly() {
  loading ||= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SOURCE;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      script.remove();
      reject(new Error(`The chart library did not load from ${SOURCE}: is the Python package “plotly” installed beside the server?`));
    };
    document.head.append(script);
  });
  return loading;
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function palette() {
  return {
    text: css("--text"), muted: css("--muted"), line: css("--line"), card: css("--card"),
    value: css("--chart-value"), expected: css("--chart-expected"), band: css("--chart-band"),
    score: css("--chart-score"), missing: css("--chart-missing"),
    critical: css("--critical"), warning: css("--warning"), info: css("--info"),
  };
}

const escape = (s) => String(s).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function wrap(s) {
  const lines = [""];
  for (const word of String(s).split(" ")) {
    if (lines.at(-1).length + word.length > LONGEST_EXPLANATION) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
  }
  return lines.map(escape).join("<br>");
}

function hoverText(columns, i, anomaly) {
  const at = columns.timestamp[i];
  const s = columns.anomaly_score[i];
  const expected = columns.expected[i];
  const lines = [`<b>${value(columns.value[i])}</b>`];
  if (expected !== null && expected !== undefined) lines[0] += `  expected ${band(columns.lower[i], columns.upper[i]) || value(expected)}`;
  if (s !== null && s !== undefined) lines.push(`score ${score(s)}, ${rarity(s)}`);
  if (anomaly) lines.push(`<b>${escape(kind(anomaly.kind))}</b>: ${wrap(anomaly.explanation)}`);
  lines.push(`${time(at, { date: "always" })}  (${utc(at)})`);
  return lines.join("<br>");
}

/** For each row the anomaly it belongs to, or undefined; anomalies are few, rows are sorted. */
function membership(times, anomalies) {
  const belongs = new Array(times.length);
  for (const anomaly of anomalies) {
    let i = lowerBound(times, anomaly.onset);
    for (; i < times.length && times[i] <= anomaly.end; i++) belongs[i] = anomaly;
  }
  return belongs;
}

export function lowerBound(times, at) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Index of the reading nearest to `at` that has a value, or -1. */
function nearestValue(columns, at) {
  const start = lowerBound(columns.timestamp, at);
  for (const i of [start, start - 1, start + 1, start - 2]) {
    if (columns.value[i] !== null && columns.value[i] !== undefined) return i;
  }
  return -1;
}

function traces(columns, anomalies, p, threshold) {
  const x = columns.timestamp.map(plotTime);
  const belongs = membership(columns.timestamp, anomalies);
  const texts = columns.timestamp.map((_, i) => hoverText(columns, i, belongs[i]));
  const common = { x, type: "scatter", mode: "lines", hoverinfo: "skip", connectgaps: false };
  const missing = columns.timestamp.flatMap((at, i) => (columns.value[i] === null ? [i] : []));
  const peaks = anomalies.map((a) => [a, nearestValue(columns, a.peak_at)]).filter(([, i]) => i >= 0);
  const hot = columns.anomaly_score.map((s, i) => ((threshold ? s >= threshold : belongs[i]) ? s : null));
  return [
    { ...common, name: "lower", y: columns.lower, line: { width: 0, shape: "linear" }, showlegend: false },
    { ...common, name: "expected band", y: columns.upper, line: { width: 0 }, fill: "tonexty", fillcolor: p.band },
    { ...common, name: "expected", y: columns.expected, line: { color: p.expected, width: 1.2, dash: "dot" } },
    { ...common, name: "value", y: columns.value, line: { color: p.value, width: 1.5 }, text: texts, hoverinfo: "text" },
    {
      name: "anomaly", type: "scatter", mode: "markers", hoverinfo: "skip",
      x: peaks.map(([, i]) => x[i]), y: peaks.map(([, i]) => columns.value[i]),
      marker: {
        size: 11, line: { width: 1.5, color: p.card },
        color: peaks.map(([a]) => p[a.severity]),
        symbol: peaks.map(([a]) => ({ critical: "diamond", warning: "triangle-up", info: "circle" })[a.severity]),
      },
    },
    {
      name: "missing", type: "scatter", mode: "markers", yaxis: "y3", showlegend: missing.length > 0, hoverinfo: "text",
      x: missing.map((i) => x[i]), y: missing.map(() => 0),
      text: missing.map((i) => `no reading at ${time(columns.timestamp[i], { date: "always" })}  (${utc(columns.timestamp[i])})`),
      marker: { symbol: "line-ns-open", size: 9, color: p.missing, line: { width: 1.5 } },
    },
    { ...common, name: "score", y: columns.anomaly_score, yaxis: "y2", fill: "tozeroy", fillcolor: p.band, line: { color: p.score, width: 1 }, showlegend: false },
    { ...common, name: "score above", y: hot, yaxis: "y2", mode: "markers", marker: { size: 4, color: p.critical }, showlegend: false },
  ];
}

function layout({ range, metric, anomalies, columns, threshold, revision, narrow }, p) {
  const shapes = anomalies.slice(0, 200).map((a) => ({
    type: "rect", xref: "x", yref: "paper", x0: plotTime(a.onset), x1: plotTime(Math.max(a.end, a.onset + 1)), y0: 0, y1: 1,
    fillcolor: p[a.severity], opacity: 0.16, line: { width: 0 }, layer: "below",
  }));
  if (threshold) {
    shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: threshold, y1: threshold, line: { color: p.critical, width: 1, dash: "dot" } });
  }
  const axis = { gridcolor: p.line, zeroline: false, linecolor: p.line, tickfont: { color: p.muted, size: 11 }, automargin: false };
  return {
    autosize: true, uirevision: revision, dragmode: narrow ? false : "zoom", hovermode: "x", shapes,
    margin: { l: narrow ? 44 : 58, r: 12, t: 8, b: 30 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), color: p.text, size: 12 },
    hoverlabel: { bgcolor: p.card, bordercolor: p.muted, font: { color: p.text, size: 12, family: css("--font") }, align: "left" },
    xaxis: { ...axis, type: "date", range, anchor: "y2", showspikes: true, spikemode: "across", spikethickness: 1, spikecolor: p.muted, spikedash: "solid", spikesnap: "data", hoverformat: "%H:%M:%S" },
    yaxis: { ...axis, domain: [0.27, 1], fixedrange: true, range: valueRange(columns, range), title: narrow ? undefined : { text: metric, font: { size: 11, color: p.muted }, standoff: 6 } },
    yaxis2: { ...axis, domain: [0, 0.17], fixedrange: true, range: [0, 1.05], tickvals: [0, 0.5, 1], title: narrow ? undefined : { text: "score", font: { size: 11, color: p.muted }, standoff: 12 } },
    yaxis3: { domain: [0.19, 0.25], fixedrange: true, visible: false, range: [-1, 1] },
    showlegend: false,
  };
}

/** y range over what is visible: values fully, the band only as far as it does not flatten the values. */
function valueRange(columns, [from, to]) {
  const first = lowerBound(columns.timestamp, fromPlotTime(from));
  const last = lowerBound(columns.timestamp, fromPlotTime(to) + 1);
  let low = Infinity;
  let high = -Infinity;
  for (let i = first; i < last; i++) {
    const v = columns.value[i];
    if (v !== null && v < low) low = v;
    if (v !== null && v > high) high = v;
  }
  if (low > high) return undefined;
  const slack = high - low || Math.abs(high) || 1;
  let [bandLow, bandHigh] = [low, high];
  for (let i = first; i < last; i++) {
    const [l, u] = [columns.lower[i], columns.upper[i]];
    if (l !== null && l < bandLow) bandLow = Math.max(l, low - slack);
    if (u !== null && u > bandHigh) bandHigh = Math.min(u, high + slack);
  }
  const margin = 0.06 * (bandHigh - bandLow || Math.abs(bandHigh) || 1);
  return [bandLow - margin, bandHigh + margin];
}

/**
 * Draw into `element`. facts: {columns, anomalies, range: [from, to] in ms, metric, threshold, revision}.
 * onZoom(from, to) is called when a person zooms or pans, onReset() on double click.
 */
export async function draw(element, facts, { onZoom, onReset }) {
  const Plotly = await loadPlotly();
  const p = palette();
  const narrow = element.clientWidth < 560;
  const range = facts.range.map(plotTime);
  const config = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false, showTips: false };
  await Plotly.react(element, traces(facts.columns, facts.anomalies, p, facts.threshold), layout({ ...facts, range, narrow }, p), config);
  if (element.bound) return;
  element.bound = true;
  element.on("plotly_relayout", (change) => {
    const from = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
    const to = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
    if (from !== undefined && to !== undefined) onZoom(fromPlotTime(from), fromPlotTime(to));
  });
  element.on("plotly_doubleclick", onReset);
}

export function purge(element) {
  if (window.Plotly && element.bound) window.Plotly.purge(element);
  element.bound = false;
}
