// Requests to the server. Errors are RFC 9457 problem details; their detail is what a person reads.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { accept: "application/json", ...options?.headers } });
  } catch {
    throw new ApiError("The server cannot be reached.", 0);
  }
  if (response.ok || options?.accept?.includes(response.status)) return response.json();
  let problem = null;
  try {
    problem = await response.json();
  } catch {
    // Not every proxy answers in JSON; the status has to do.
  }
  const detail = typeof problem?.detail === "string" ? problem.detail : problem?.title;
  throw new ApiError(detail || `The server answered ${response.status} ${response.statusText}.`, response.status);
}

function get(path, parameters = {}, options) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return request(query.size ? `${path}?${query}` : path, options);
}

const post = (path, body) =>
  request(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const api = {
  health: () => get("/api/health", {}, { accept: [503] }), // 503 is how a probe reads "degraded"; the body is the same
  statistics: () => get("/api/statistics"),
  anomalies: (p) => get("/api/anomalies", p).then((r) => r.anomalies),
  alerts: (p) => get("/api/alerts", p).then((r) => r.alerts),
  series: (p) => get("/api/series", { limit: 10000, ...p }).then((r) => r.series),
  readings: (p, signal) => get("/api/readings", p, { signal }),
  rollup: (p) => get("/api/rollup", p).then((r) => r.tenants),
  rejected: (p) => get("/api/rejected", p),
  feedback: (p) => get("/api/v1/feedback", p).then((r) => r.feedback),
  acknowledge: (id, by, note) => post(`/api/alerts/${encodeURIComponent(id)}/acknowledge`, { by, note }),
  say: (id, verdict, by) => post(`/api/v1/anomalies/${encodeURIComponent(id)}/feedback`, { verdict, by }),
};
