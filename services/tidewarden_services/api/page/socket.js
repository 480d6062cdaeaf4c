// The live connection: reconnects by itself with back-off, and says what state it is in.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
// The server sends statistics every second or so; after this long a silent connection is a dead one.
const SILENCE_MS = 15000;

export class LiveSocket {
  /** onMessage(type, data); onState({state: "connecting" | "open" | "waiting", retryAt}) */
  constructor(path, { onMessage, onState }) {
    this.path = path;
    this.onMessage = onMessage;
    this.onState = onState;
    this.wait = FIRST_WAIT_MS;
    this.series = null;
    this.detector = null;
    this.timer = null;
    this.silence = null;
    window.addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  connect() {
    clearTimeout(this.timer);
    this.timer = null;
    const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${this.path}`;
    this.onState({ state: "connecting" });
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.onopen = () => {
      this.wait = FIRST_WAIT_MS;
      this.heard();
      this.onState({ state: "open" });
      if (this.series) this.send();
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heard();
      const message = JSON.parse(event.data);
      this.onMessage(message.type, message.data);
    };
    socket.onclose = () => socket === this.socket && this.lost();
  }

  heard() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      // Not waiting for onclose: a closing handshake with a dead peer takes another minute.
      const dead = this.socket;
      this.socket = null;
      dead.close();
      this.lost();
    }, SILENCE_MS);
  }

  lost() {
    clearTimeout(this.silence);
    // Jitter, so that a hundred pages do not come back in the same instant.
    const wait = this.wait * (0.75 + 0.5 * Math.random());
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
    this.onState({ state: "waiting", retryAt: Date.now() + wait });
    this.timer = setTimeout(() => this.connect(), wait);
  }

  retryNow() {
    if (this.timer !== null) this.connect();
  }

  /** Which series' readings should come along; null for none. */
  subscribe(series, detector = null) {
    this.series = series;
    this.detector = detector;
    if (this.socket?.readyState === WebSocket.OPEN) this.send();
  }

  send() {
    this.socket.send(JSON.stringify({ subscribe: { series: this.series, detector: this.detector } }));
  }
}
