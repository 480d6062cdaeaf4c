// The fleet as a map: tenant → cluster → node, coloured by score.
//
// Every node is a button, laid out by CSS grid and coloured by a data attribute, so a live update of a
// thousand nodes touches only the attributes that changed. Positions are stable (sorted by name): an
// operator finds a node where it was a minute ago.
import { fill, h, text } from "./dom.js";
import { GLYPH, band, kind, level, pill, rarity, score, severityOf, time, utc, value } from "./format.js";

const REPLAY_FROM_MS = 15 * 60e3; // data this far from the clock is being replayed (or badly behind)
const DENSE_FROM_NODES = 150; // beyond it names no longer fit: cells become plain squares

const byName = new Intl.Collator("en", { numeric: true }).compare;
const pathOf = (scope) => [scope.tenant, scope.cluster, scope.node].filter(Boolean).join("/");

export class HeatMap {
  /** onOpen(nodeFacts): a node was chosen. tip: element for the hover card. */
  constructor(container, { onOpen, tip }) {
    this.container = container;
    this.onOpen = onOpen;
    this.tip = tip;
    this.scopes = new Map(); // path → {tenant, cluster, node, score, peak, at, metrics, known}
    this.cells = new Map(); // path → element
    this.pills = new Map(); // path of a cluster or tenant → element
    this.times = new Map(); // tenant → newest tick, ms
    this.clocks = new Map(); // tenant → element that shows it
    this.held = null; // path → highest score of the chosen window, or null for "now"
    this.open = new Map(); // path → open anomalies
    this.needle = "";
    this.shape = "";
    this.pending = false;
    container.addEventListener("click", (event) => this.#choose(event));
    container.addEventListener("keydown", (event) => this.#move(event));
    container.addEventListener("pointerover", (event) => event.pointerType === "mouse" && this.#hover(event));
    container.addEventListener("pointerleave", () => this.#hideTip());
    container.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && this.#hover(event));
    container.addEventListener("focusout", () => this.#hideTip());
    window.addEventListener("scroll", () => this.#hideTip(), { passive: true });
  }

  /** Nodes that send readings, whether or not they are scored yet: [{tenant, cluster, node, metrics: [name]}]. */
  setNodes(nodes) {
    for (const node of nodes) {
      const scope = this.#scope(node);
      scope.known = node.metrics;
    }
    this.#schedule();
  }

  /** Forget all scores, as when another detector's are wanted. */
  clear() {
    for (const scope of this.scopes.values()) Object.assign(scope, { score: null, peak: null, at: null, metrics: null });
    this.#schedule();
  }

  /**
   * Rollup trees of GET /api/rollup, one for each detector: the metrics behind each node, and scores
   * where none newer is known. A tree holds one tick, so what is not in it is left as it was.
   */
  setTrees(trees) {
    const merged = new Map(); // node path → metric → facts, the highest score of several detectors
    for (const tenant of trees.flat()) {
      this.#take({ tenant: tenant.name, cluster: "", node: "" }, tenant);
      for (const cluster of tenant.children || []) {
        this.#take({ tenant: tenant.name, cluster: cluster.name, node: "" }, cluster);
        for (const node of cluster.children || []) {
          const scope = { tenant: tenant.name, cluster: cluster.name, node: node.name };
          this.#take(scope, node);
          const metrics = merged.get(pathOf(scope)) || new Map();
          merged.set(pathOf(scope), metrics);
          for (const m of node.metrics || []) {
            if (!((metrics.get(m.metric)?.score ?? -1) >= m.score)) metrics.set(m.metric, m);
          }
        }
      }
    }
    for (const [path, metrics] of merged) this.scopes.get(path).metrics = [...metrics.values()];
    this.#schedule();
  }

  /** Live rollup rows: [{tenant, cluster, node, score, peak, at}]. */
  update(rows) {
    for (const row of rows) Object.assign(this.#scope(row), { score: row.score, peak: row.peak, at: row.at });
    this.#schedule();
  }

  /** Colour by these scores instead of the present ones; null for the present. */
  hold(scores) {
    this.held = scores;
    this.#schedule();
  }

  /** How many open anomalies each node has: path → number. */
  mark(open) {
    this.open = open;
    this.#schedule();
  }

  /** Put the focus on a node's cell. */
  focus({ tenant, cluster, node }) {
    const cell = this.cells.get([tenant, cluster, node].join("/"));
    if (!cell) return;
    for (const other of this.cells.values()) if (other.tabIndex === 0) other.tabIndex = -1;
    cell.tabIndex = 0;
    cell.focus();
    this.#hideTip();
  }

  filter(needle) {
    this.needle = needle;
    this.#schedule();
  }

  /** How far time has come for a tenant: newest tick scored, ms; undefined before the first. */
  timeOf(tenant) {
    return this.times.get(tenant);
  }

  get nodes() {
    return [...this.scopes.values()].filter((scope) => scope.node);
  }

  #scope(scope) {
    const path = pathOf(scope);
    let known = this.scopes.get(path);
    if (!known) {
      known = { path, tenant: scope.tenant, cluster: scope.cluster, node: scope.node, score: null, peak: null };
      this.scopes.set(path, known);
    }
    return known;
  }

  #take(name, facts) {
    const known = this.#scope(name);
    if ((known.at ?? -Infinity) >= facts.at && known.score !== null) return;
    Object.assign(known, { score: facts.score, peak: facts.peak, at: facts.at });
  }

  #schedule() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.#draw();
    });
  }

  #draw() {
    const nodes = this.nodes;
    this.times.clear();
    for (const scope of this.scopes.values()) {
      if (scope.at && !(this.times.get(scope.tenant) >= scope.at)) this.times.set(scope.tenant, scope.at);
    }
    const shape = nodes.map((node) => node.path).sort().join("\n");
    if (shape !== this.shape) {
      this.shape = shape;
      this.#build(nodes);
    }
    for (const node of nodes) this.#paint(node);
    for (const [path, element] of this.pills) {
      const now = this.scopes.get(path)?.score ?? null;
      text(element, score(now));
      element.dataset.level = level(now);
    }
    for (const [tenant, element] of this.clocks) {
      const at = this.times.get(tenant);
      if (element.at === at) continue;
      element.at = at;
      text(element, at ? asOf(at) : "");
      element.title = at ? utc(at) : "";
    }
    for (const row of this.container.querySelectorAll(".cluster")) {
      row.hidden = !row.querySelector(".cell:not([hidden])");
    }
    for (const block of this.container.querySelectorAll(".tenant")) {
      block.hidden = !block.querySelector(".cluster:not([hidden])");
    }
    const nothing = this.container.querySelector(".no-match");
    if (nothing) nothing.hidden = !this.needle || [...this.cells.values()].some((cell) => !cell.hidden);
    this.#rove();
  }

  /** What a node is coloured by: the hottest metric, so that calm siblings never hide it. */
  shown(node) {
    if (this.held) return this.held.get(node.path) ?? (node.score === null ? null : 0);
    return node.score === null ? null : Math.max(node.score, node.peak ?? 0);
  }

  #paint(node) {
    const cell = this.cells.get(node.path);
    const s = this.shown(node);
    const open = this.open.get(node.path) || 0;
    const version = `${level(s)}|${score(s)}|${open}`;
    if (cell.version !== version) {
      cell.version = version;
      cell.dataset.level = level(s);
      cell.dataset.open = open;
      text(cell.lastElementChild, s === null ? "" : s >= 0.5 ? score(s) : "");
      const state = s === null ? "learning, no score yet" : `score ${score(s)}, ${s >= 0.6 ? severityOf(s) : "calm"}`;
      const anomalies = open ? `, ${open} open ${open === 1 ? "anomaly" : "anomalies"}` : "";
      cell.setAttribute("aria-label", `${node.node}: ${state}${anomalies}`);
    }
    const haystack = `${node.path} ${(node.known || []).join(" ")}`.toLowerCase();
    cell.hidden = Boolean(this.needle) && !haystack.includes(this.needle);
  }

  #build(nodes) {
    const focused = document.activeElement?.dataset?.path;
    this.cells.clear();
    this.pills.clear();
    this.clocks.clear();
    const dense = nodes.length > DENSE_FROM_NODES;
    this.container.classList.toggle("dense", dense);
    const tenants = new Map();
    for (const node of nodes) {
      if (!tenants.has(node.tenant)) tenants.set(node.tenant, new Map());
      const clusters = tenants.get(node.tenant);
      if (!clusters.has(node.cluster)) clusters.set(node.cluster, []);
      clusters.get(node.cluster).push(node);
    }
    const blocks = [...tenants.keys()].sort(byName).map((tenant) => {
      const clusters = tenants.get(tenant);
      const rows = [...clusters.keys()].sort(byName).map((cluster) => this.#row(tenant, cluster, clusters.get(cluster)));
      return h("section.tenant", { "aria-label": `tenant ${tenant}` },
        h("h3", null, h("span", { title: "tenant" }, tenant), this.#pill(tenant), this.#clock(tenant)), rows);
    });
    fill(this.container, blocks, h("p.no-match.empty", { hidden: true }, "No node matches the filter."));
    if (focused && this.cells.has(focused)) this.cells.get(focused).focus();
  }

  #row(tenant, cluster, nodes) {
    const cells = nodes.sort((a, b) => byName(a.node, b.node)).map((node) => {
      const cell = h("button.cell", { type: "button", tabindex: -1, dataset: { path: node.path } },
        h("span.name", null, node.node), h("span.score", { "aria-hidden": "true" }));
      this.cells.set(node.path, cell);
      return cell;
    });
    const longest = Math.max(...nodes.map((node) => node.node.length));
    const width = `${Math.min(200, Math.max(64, 7 * longest + (longest > 4 ? 46 : 22)))}px`; // name and score side by side
    return h("div.cluster", { role: "group", "aria-label": `cluster ${cluster}, ${nodes.length} nodes` },
      h("h4", null, h("span", { title: `cluster ${cluster}` }, cluster), this.#pill(`${tenant}/${cluster}`)),
      h("div.cells", { style: { "--cell": width } }, cells));
  }

  #clock(tenant) {
    const element = h("time.muted.asof");
    this.clocks.set(tenant, element);
    return element;
  }

  #pill(path) {
    const element = h("span.pill", { title: "rolled-up score: the sum of what its children contribute", dataset: { level: "none" } }, "–");
    this.pills.set(path, element);
    return element;
  }

  /** One tab stop for the whole map; arrow keys move inside it. */
  #rove() {
    const current = [...this.cells.values()].find((cell) => cell.tabIndex === 0);
    if (current && !current.hidden) return;
    if (current) current.tabIndex = -1;
    const first = [...this.cells.values()].find((cell) => !cell.hidden);
    if (first) first.tabIndex = 0;
  }

  #move(event) {
    const cell = event.target.closest(".cell");
    const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-9e9, 0], End: [9e9, 0] };
    const step = steps[event.key];
    if (event.key === "Escape") this.#hideTip();
    if (!cell || !step) return;
    event.preventDefault();
    const visible = [...this.container.querySelectorAll(".cell:not([hidden])")];
    const index = visible.indexOf(cell);
    const target = step[1] === 0
      ? visible[Math.max(0, Math.min(visible.length - 1, index + step[0]))]
      : nearest(cell, visible, step[1]);
    if (!target) return;
    cell.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  }

  #choose(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    this.#hideTip();
    this.onOpen(this.scopes.get(cell.dataset.path));
  }

  #hover(event) {
    const cell = event.target.closest(".cell");
    if (!cell) {
      this.#hideTip();
      return;
    }
    if (this.over === cell) return;
    this.over = cell;
    fill(this.tip, nodeCard(this.scopes.get(cell.dataset.path), this.open.get(cell.dataset.path) || 0));
    this.tip.hidden = false;
    const box = cell.getBoundingClientRect();
    const card = this.tip.getBoundingClientRect();
    const below = box.bottom + 8 + card.height < innerHeight;
    this.tip.style.left = `${Math.max(8, Math.min(innerWidth - card.width - 8, box.left))}px`;
    this.tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - card.height - 8)}px`;
  }

  #hideTip() {
    this.over = null;
    this.tip.hidden = true;
  }
}

/** "14:02:00", or what says that the data is not of today's clock. */
const asOf = (at) => (Math.abs(Date.now() - at) > REPLAY_FROM_MS ? `data time ${time(at, { date: "always" })}` : time(at));

/** The next cell above or below the present one on the screen. */
function nearest(cell, cells, direction) {
  const from = cell.getBoundingClientRect();
  let best = null;
  let bestDistance = Infinity;
  for (const other of cells) {
    const box = other.getBoundingClientRect();
    const down = (box.top - from.top) * direction;
    if (down < 4) continue;
    const distance = down * 1000 + Math.abs(box.left - from.left);
    if (distance < bestDistance) [best, bestDistance] = [other, distance];
  }
  return best;
}

function nodeCard(node, open) {
  const s = node.score === null ? null : Math.max(node.score, node.peak ?? 0);
  const metrics = [...(node.metrics || [])].sort((a, b) => (b.score ?? 0) - (a.score ?? 0)).slice(0, 6);
  return [
    h("div.tip-head", null, h("b", null, node.path.replaceAll("/", " / ")), pill(s)),
    s === null
      ? h("p.muted", null, "Learning: readings arrive, scores follow once the model has seen enough of them.")
      : h("p.muted", null, s >= 0.6 ? `${GLYPH[severityOf(s)]} ${severityOf(s)}, ${rarity(s)} readings` : "calm", node.at ? ` · ${time(node.at)}` : ""),
    open ? h("p", null, `${open} open ${open === 1 ? "anomaly" : "anomalies"}`) : null,
    metrics.length
      ? h("table", null, metrics.map((m) =>
          h("tr", null,
            h("td", null, m.metric),
            h("td.number", null, value(m.value)),
            h("td.muted", null, m.expected === null || m.expected === undefined ? "" : `expected ${band(m.lower, m.upper) || value(m.expected)}`),
            h("td", null, pill(m.score)),
            h("td.muted", null, m.kind && m.kind !== "none" ? kind(m.kind) : ""))))
      : null,
    h("p.muted.hint", null, "Click for the chart of its most unusual metric."),
  ];
}
