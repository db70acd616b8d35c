// The dashboard model as Grafana's own types have it, with what they leave open
// (a panel's options and custom field settings, a query) closed by the types of
// the plugins that we use.
import type * as core from "@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import type * as heatmap from "@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen";
import type * as stat from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type * as timeseries from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";

interface Query {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: "time_series" | "table" | "heatmap";
  exemplar?: boolean;
  instant?: boolean;
}

type Of<Type extends string, Options, Custom> = Omit<core.Panel, "type" | "targets" | "options" | "fieldConfig"> & {
  type: Type;
  targets: Query[];
  options: Options;
  fieldConfig: Omit<core.FieldConfigSource, "defaults"> & {
    defaults: Omit<core.FieldConfig, "custom"> & { custom?: Custom };
  };
};

type Panel =
  | Of<"timeseries", Partial<timeseries.Options>, Partial<timeseries.FieldConfig>>
  | Of<"stat", Partial<stat.Options>, never>
  | Of<"heatmap", Partial<heatmap.Options>, Partial<heatmap.FieldConfig>>
  | core.RowPanel;

export type Dashboard = Omit<core.Dashboard, "panels"> & { uid: string; panels: Panel[] };
