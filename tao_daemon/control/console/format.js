// Numbers and times as people read them. Pure: the present moment is an argument, times are Unix seconds.

const MINUS = "\u2212";

/** A span of seconds in its two largest units: "1 min 24 s". */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 1) return seconds > 0.0005 ? `${seconds.toFixed(seconds < 0.1 ? 3 : 1)} s` : "0 s";
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return pair(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return pair(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function pair(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}

/** "just now", "5 min ago", "in 2 h": one unit is enough beside the absolute time. */
export function relative(at, now) {
  const away = now - at;
  if (Math.abs(away) < 5) return "just now";
  const [size, unit] =
    Math.abs(away) < 60
      ? [1, "s"]
      : Math.abs(away) < 3600
        ? [60, "min"]
        : Math.abs(away) < 86400
          ? [3600, "h"]
          : [86400, "d"];
  const text = `${Math.floor(Math.abs(away) / size)} ${unit}`;
  return away > 0 ? `${text} ago` : `in ${text}`;
}

/** "2026-11-22 20:59:50 UTC". */
export function utc(at) {
  return new Date(at * 1000).toISOString().replace("T", " ").slice(0, 19) + " UTC";
}

/** The hours and minutes of the reader's own clock. */
export function clockTime(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

/** A plain number with a true minus sign. */
export function decimal(value, digits = 2) {
  if (value == null || !Number.isFinite(value)) return "–";
  return value
    .toFixed(digits)
    .replace(/^-(?=0(\.0*)?$)/, "")
    .replace("-", MINUS);
}

/** The same, with its sign always there: a difference. */
export function signed(value, digits = 2) {
  const text = decimal(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** "[+0.10, +0.31]". */
export function interval(low, high, digits = 2) {
  return low == null || high == null ? "" : `[${signed(low, digits)},\u00a0${signed(high, digits)}]`;
}

/** A fraction in percent, with a digit behind the point only where it tells something. */
export function percent(fraction) {
  if (fraction == null || !Number.isFinite(fraction)) return "–";
  const value = fraction * 100;
  return `${value.toFixed(value !== 0 && Math.abs(value) < 10 && value % 1 > 0.049 ? 1 : 0)} %`;
}

/** An e-value, rounded down: what has not reached its threshold must not read as if it had. */
export function figure(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value >= 1e4) return value.toExponential(1);
  return String(Math.floor(value * 10) / 10);
}

/** A whole number with thin spaces between thousands. */
export function whole(value) {
  return value == null || !Number.isFinite(value)
    ? "–"
    : String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

/** "1 pair", "34 pairs". */
export function counted(value, noun, plural = `${noun}s`) {
  return `${whole(value)} ${value === 1 ? noun : plural}`;
}

/** Any figure of a report: whole where it is whole, else four significant digits. */
export function plain(value) {
  if (typeof value !== "number") return value == null ? "–" : String(value);
  return Number.isInteger(value) ? whole(value) : Number(value.toPrecision(4)).toString().replace("-", MINUS);
}
