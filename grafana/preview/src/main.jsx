/** Draws one dashboard's JSON on live data with Grafana's own panels: a preview, not Grafana. */
import { createElement, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createTheme, dateTime, reduceField } from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, Table, ThemeContext, TimeSeries } from '@grafana/ui';
import { frames, marks } from './data';

const theme = createTheme({ colors: { mode: 'dark' } });
const [CELL, GAP, TITLE] = [30, 8, 28];

const display = (field, options) => {
  const calc = options.reduceOptions?.calcs?.[0] ?? 'lastNotNull';
  return field.display(reduceField({ field, reducers: [calc] })[calc]);
};

function Stats({ panel, data, width, height }) {
  const named = ['value_and_name', 'name'].includes(panel.options.textMode) || data.length > 1;
  return data.map(({ fields: [time, field] }, index) => {
    const value = { ...display(field, panel.options), title: named ? field.state.displayName : '' };
    const sparkline = panel.options.graphMode === 'area' ? { x: time, y: field, highlightIndex: field.values.length - 1 } : undefined;
    return createElement(BigValue, {
      key: index, theme, value, sparkline, width: width / data.length, height, hasLinks: false, alignmentFactors: undefined,
      colorMode: panel.options.colorMode, graphMode: panel.options.graphMode, justifyMode: panel.options.justifyMode,
      textMode: panel.options.textMode, text: panel.options.text, count: data.length,
    });
  });
}

function Bars({ panel, data, width, height }) {
  const tall = Math.min(60, height / data.length);
  return data.map(({ fields: [, field] }, index) => (
    <BarGauge key={index} theme={theme} field={field.config} display={field.display} width={width} height={tall - 6}
      value={{ ...display(field, panel.options), title: field.state.displayName }} orientation="horizontal"
      displayMode={panel.options.displayMode} valueDisplayMode="color" namePlacement="left" itemSpacing={6} />
  ));
}

/** Annotations on the plot: a dashed line where a region begins, a band where it lasts. */
const drawn = new WeakSet();
function annotate(builder, notes) {
  if (drawn.has(builder)) {
    return null;
  }
  drawn.add(builder);
  builder.addHook('draw', ({ ctx, bbox, valToPos }) => {
    ctx.save();
    for (const { from, to, color } of notes) {
      const left = valToPos(from * 1000, 'x', true);
      ctx.strokeStyle = ctx.fillStyle = theme.visualization.getColorByName(color);
      ctx.setLineDash([4, 4]);
      ctx.strokeRect(left, bbox.top, 0, bbox.height);
      ctx.globalAlpha = 0.07;
      ctx.fillRect(left, bbox.top, valToPos(to * 1000, 'x', true) - left, bbox.height);
      ctx.globalAlpha = 1;
    }
    ctx.restore();
  });
  return null;
}

const Lines = ({ panel, data, notes, width, height, range }) => (
  <TimeSeries frames={data} width={width} height={height} timeZone="utc" timeRange={range} legend={panel.options.legend} options={panel.options}>
    {(builder) => annotate(builder, notes)}
  </TimeSeries>
);

const PANELS = {
  timeseries: Lines,
  stat: (props) => <div style={{ display: 'flex' }}><Stats {...props} /></div>,
  bargauge: Bars,
  table: ({ data, width, height }) => <Table data={data[0]} width={width} height={height} />,
  text: ({ panel }) => <div style={{ whiteSpace: 'pre-wrap' }}>{panel.options.content}</div>,
};

const isEmpty = ({ panel, data }) =>
  !['row', 'text'].includes(panel.type) &&
  !data.some(({ fields }) => fields.some(({ type, values }) => type !== 'time' && values.some((value) => type === 'string' || Number.isFinite(value))));

function Drawn({ panel, data, notes, range, size }) {
  const { x, y, w, h } = panel.gridPos;
  const unit = size / 24;
  const box = { left: x * unit + GAP / 2, top: y * (CELL + GAP), width: w * unit - GAP, height: h * (CELL + GAP) - GAP };
  if (panel.type === 'row') {
    return <div className="row" style={box}>▾ {panel.title}</div>;
  }
  const [width, height] = [box.width - 18, box.height - TITLE - 10];
  const empty = isEmpty({ panel, data });
  return (
    <div className="panel" style={box}>
      <h2>{panel.title}</h2>
      <div style={{ padding: '0 8px' }}>
        {empty ? <em>{panel.fieldConfig?.defaults?.noValue ?? 'No data'}</em> : createElement(PANELS[panel.type], { panel, data, notes, width, height, range })}
      </div>
    </div>
  );
}

function Page({ dashboard, shown, notes, range, size }) {
  const empty = shown.filter(isEmpty).map(({ panel }) => panel.title);
  useEffect(() => void setTimeout(() => (document.title = ['drawn', ...empty].join('|')), 1500), []);
  const bottom = Math.max(...shown.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <header>{dashboard.title}<small>{[...new Set(notes.map(({ text }) => text))].join(' · ')}{notes.length ? ' · ' : ''}preview drawn with Grafana&apos;s panels, {range.from.utc().format('YYYY-MM-DD HH:mm')} to {range.to.utc().format('HH:mm')} UTC</small></header>
      <div id="grid" style={{ height: bottom * (CELL + GAP) }}>
        {shown.map(({ panel, data }) => <Drawn key={panel.id ?? panel.title} {...{ panel, data, notes, range, size }} />)}
      </div>
    </ThemeContext.Provider>
  );
}

async function main() {
  const asked = Object.fromEntries(new URLSearchParams(location.search));
  const dashboard = await (await fetch(`/dashboards/${asked.dashboard}.json`)).json();
  const [from, to] = [Number(asked.from), Number(asked.to)];
  const step = Math.max(1, Math.ceil((to - from) / 400));
  const variables = { job: '.*', instance: '.*', gateway: '.*', __rate_interval: asked.rate, __interval: `${step}s`, __range: `${to - from}s` };
  const around = { from, to, step, variables };
  const shown = [];
  for (const panel of dashboard.panels) {
    shown.push({ panel, data: panel.type === 'row' || panel.type === 'text' ? [] : await frames(panel, theme, around) });
  }
  const notes = (await Promise.all((dashboard.annotations.list ?? []).map((note) => marks(note, around)))).flat();
  const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: '', to: '' } };
  createRoot(document.getElementById('root')).render(<Page {...{ dashboard, shown, notes, range, size: innerWidth - 8 }} />);
}

main().catch((error) => {
  document.body.textContent = document.title = `failed: ${error.message}`;
});
