// Addresses: #/ is the fleet, #/series/tenant/cluster/node/metric?from&to&detector a chart.

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  const parameters = new URLSearchParams(query);
  if (parts[0] === "series" && parts.length === 5) {
    const [, tenant, cluster, node, metric] = parts;
    return {
      view: "series",
      key: { tenant, cluster, node, metric },
      from: number(parameters.get("from")),
      to: number(parameters.get("to")),
      detector: parameters.get("detector") || undefined,
    };
  }
  return { view: "fleet" };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a stray % is shown as it is
  }
}

function number(text) {
  const n = text === null ? NaN : Number(text);
  return Number.isFinite(n) ? n : undefined;
}

export function start(onRoute) {
  window.addEventListener("hashchange", () => onRoute(parse(location.hash), { first: false }));
  onRoute(parse(location.hash), { first: true });
}
