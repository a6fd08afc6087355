/** Prometheus' answers become Grafana's data frames, with a panel's field config on every field. */
import { FieldType, getDisplayProcessor, toDataFrame } from '@grafana/data';

/** Grafana's variables and intervals in a query, filled in. */
export function filled(text, variables) {
  return text.replace(/\$\{?(\w+)(?::\w+)?\}?/g, (whole, name) => variables[name] ?? whole);
}

async function prometheus(path, parameters) {
  const answer = await (await fetch(`/prometheus/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
  if (answer.status !== 'success') {
    throw new Error(`${parameters.query}: ${answer.error}`);
  }
  return answer.data.result;
}

const named = (target, metric) =>
  target.legendFormat && target.legendFormat !== '__auto'
    ? target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '')
    : JSON.stringify(metric);

/** Annotations: regions of neighbouring points whose value is not 0, as Grafana joins them. */
export async function marks({ target, iconColor, titleFormat }, { from, to, step, variables }) {
  const series = await prometheus('query_range', { query: filled(target.expr, variables), start: from, end: to, step });
  const regions = [];
  for (const { metric, values } of series) {
    let last;
    for (const [time] of values.filter(([, value]) => Number(value))) {
      if (last && time - last.to <= step) {
        last.to = time;
      } else {
        last = { from: time, to: time, color: iconColor, text: named({ legendFormat: titleFormat }, metric) };
        regions.push(last);
      }
    }
  }
  return regions;
}

export async function frames(panel, theme, { from, to, step, variables }) {
  const found = [];
  for (const target of panel.targets ?? []) {
    const query = filled(target.expr, variables);
    const result = target.instant
      ? (await prometheus('query', { query, time: to })).map(({ metric, value }) => ({ metric, values: [value] }))
      : await prometheus('query_range', { query, start: from, end: to, step });
    found.push(...result.map((series) => ({ ...series, target })));
  }
  if (panel.type === 'table') {
    return [table(panel, theme, found)];
  }
  return found.map(({ metric, values, target }, index) => {
    const name = named(target, metric);
    const frame = toDataFrame({
      refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: values.map(([time]) => time * 1000) },
        // As Grafana's panels have it: what is no number is a gap.
        { name, type: FieldType.number, values: values.map(([, value]) => (Number.isFinite(Number(value)) ? Number(value) : null)), labels: {} },
      ],
    });
    configure(frame.fields[1], panel, theme, target.refId, index);
    return frame;
  });
}

/** A row per series, a column per label and one for the value, as the panel's organize transformation has it. */
function table(panel, theme, found) {
  const organize = (panel.transformations ?? []).find(({ id }) => id === 'organize')?.options ?? {};
  const columns = [...new Set(found.flatMap(({ metric }) => Object.keys(metric))), 'Value'];
  const shown = columns
    .filter((name) => !organize.excludeByName?.[name])
    .sort((a, b) => (organize.indexByName?.[a] ?? 99) - (organize.indexByName?.[b] ?? 99));
  const frame = toDataFrame({
    fields: shown.map((name) => ({
      name: organize.renameByName?.[name] ?? name,
      type: name === 'Value' ? FieldType.number : FieldType.string,
      values: found.map(({ metric, values }) => (name === 'Value' ? Number(values.at(-1)[1]) : metric[name] ?? '')),
    })),
  });
  frame.fields.forEach((field, index) => configure(field, panel, theme, 'A', index));
  return frame;
}

function configure(field, panel, theme, refId, index) {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  field.config = structuredClone(defaults);
  for (const { matcher, properties } of overrides) {
    const matches =
      (matcher.id === 'byName' && matcher.options === field.name) ||
      (matcher.id === 'byRegexp' && new RegExp(matcher.options.replace(/^\/|\/$/g, '')).test(field.name)) ||
      (matcher.id === 'byFrameRefID' && matcher.options === refId);
    for (const { id, value } of matches ? properties : []) {
      const [group, key] = id.startsWith('custom.') ? [(field.config.custom ??= {}), id.slice(7)] : [field.config, id];
      group[key] = value;
    }
  }
  field.state = { seriesIndex: index, displayName: field.config.displayName ?? field.name };
  field.display = getDisplayProcessor({ field, theme });
}
