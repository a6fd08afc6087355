/** The shape of the committed dashboards: Grafana's own types, with each panel's options and queries filled in. */
import type * as common from '@grafana/grafana-foundation-sdk/common';
import type * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import type * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import type * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import type * as stat from '@grafana/grafana-foundation-sdk/stat';
import type * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import type * as table from '@grafana/grafana-foundation-sdk/table';
import type * as text from '@grafana/grafana-foundation-sdk/text';
import type * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';

interface Typed<Type extends string, Options, Custom>
  extends Omit<dashboard.Panel, 'type' | 'targets' | 'options' | 'fieldConfig'> {
  type: Type;
  targets?: prometheus.Dataquery[];
  options?: Options;
  fieldConfig?: Omit<dashboard.FieldConfigSource, 'defaults'> & {
    defaults: Omit<dashboard.FieldConfig, 'custom'> & { custom?: Custom };
  };
}

type Panel =
  | Typed<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Typed<'stat', stat.Options, Record<string, never>>
  | Typed<'bargauge', bargauge.Options, Record<string, never>>
  | Typed<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>
  | Typed<'table', table.Options, common.TableFieldOptions>
  | Typed<'text', text.Options, Record<string, never>>;

export interface CommittedDashboard extends Omit<dashboard.Dashboard, 'panels' | 'annotations'> {
  panels: (Panel | (Omit<dashboard.RowPanel, 'panels'> & { panels: Panel[] }))[];
  annotations: { list: (Omit<dashboard.AnnotationQuery, 'target'> & { target?: prometheus.Dataquery | dashboard.AnnotationTarget })[] };
}
