package monitoring

import (
	"fmt"
	"strings"
)

// The parts of Grafana's dashboard model that ours use, in its JSON names; the tests hold them against Grafana's own
// schema.
type (
	dashboard struct {
		UID           string         `json:"uid"`
		Title         string         `json:"title"`
		Description   string         `json:"description"`
		Tags          []string       `json:"tags"`
		SchemaVersion int            `json:"schemaVersion"`
		Editable      bool           `json:"editable"`
		GraphTooltip  int            `json:"graphTooltip"`
		Refresh       string         `json:"refresh"`
		Timezone      string         `json:"timezone"`
		Time          map[string]any `json:"time"`
		Links         []object       `json:"links"`
		Templating    object         `json:"templating"`
		Annotations   object         `json:"annotations"`
		Panels        []panel        `json:"panels"`
	}
	panel struct {
		ID          int      `json:"id"`
		Type        string   `json:"type"`
		Title       string   `json:"title"`
		Description string   `json:"description,omitempty"`
		GridPos     gridPos  `json:"gridPos"`
		Datasource  *object  `json:"datasource,omitempty"`
		Targets     []target `json:"targets,omitempty"`
		FieldConfig *object  `json:"fieldConfig,omitempty"`
		Options     object   `json:"options,omitempty"`
		Collapsed   *bool    `json:"collapsed,omitempty"` // of a row
		Panels      *[]panel `json:"panels,omitempty"`    // of a row

		width, height int
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	target struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
		Format       string `json:"format"`
		Exemplar     bool   `json:"exemplar"`
	}
	object = map[string]any
)

// query is an expression and the name of its lines. In it @ns stands for the matcher of the chosen namespace and @svc
// for that of the chosen service.
type query struct{ expr, legend string }

// q makes a query of an expression that may be broken into lines.
func q(legend, expr string) query {
	expr = strings.Join(strings.Fields(expr), " ")
	expr = strings.NewReplacer("@ns", `namespace=~"$namespace"`, "@svc", `service_name=~"$service"`).Replace(expr)
	return query{expr, legend}
}

// quantiles are queries for quantiles of a histogram, by one more label or none.
func quantiles(histogram, matchers, by string, of ...string) []query {
	labels, legend := "le", ""
	if by != "" {
		labels, legend = "le, "+by, " {{"+by+"}}"
	}
	var all []query
	for _, quantile := range of {
		name := "p" + strings.TrimRight(strings.TrimPrefix(quantile, "0."), "0")
		all = append(all, q(name+legend, fmt.Sprintf(
			"histogram_quantile(%s, sum by (%s) (rate(%s_bucket{%s}[$__rate_interval])))", quantile, labels, histogram, matchers)))
	}
	return all
}

func newPanel(kind, title, description, unit string, width, height int, queries []query) panel {
	p := panel{
		Type: kind, Title: title, Description: description, width: width, height: height,
		Datasource: &object{"type": "prometheus", "uid": "${datasource}"},
	}
	for i, query := range queries {
		p.Targets = append(p.Targets, target{
			RefID: string(rune('A' + i)), Expr: query.expr, LegendFormat: query.legend, Format: "time_series",
		})
	}
	p.FieldConfig = &object{"defaults": object{"unit": unit}, "overrides": []any{}}
	return p
}

// lines is a third of a row wide.
func lines(title, description, unit string, queries ...query) panel {
	p := newPanel("timeseries", title, description, unit, 8, 8, queries)
	for i, t := range p.Targets {
		p.Targets[i].Exemplar = strings.HasPrefix(t.Expr, "histogram_quantile")
	}
	(*p.FieldConfig)["defaults"] = object{
		"unit": unit, "min": 0,
		"custom": object{"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": true},
	}
	p.Options = object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
	return p
}

// figure is one number, which turns red at the limit; 0 means none does.
func figure(title, description, unit string, limit float64, number query) panel {
	p := newPanel("stat", title, description, unit, 4, 4, []query{number})
	steps := []object{{"color": "green", "value": nil}}
	if limit > 0 {
		steps = append(steps, object{"color": "red", "value": limit})
	}
	(*p.FieldConfig)["defaults"] = object{
		"unit": unit, "noValue": "–", "color": object{"mode": "thresholds"},
		"thresholds": object{"mode": "absolute", "steps": steps},
	}
	p.Options = object{
		"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
		"percentChangeColorMode": "standard", "showPercentChange": false, "wideLayout": true,
		"reduceOptions": object{"calcs": []string{"lastNotNull"}, "values": false},
	}
	return p
}

// heatMap shows how a histogram's values are spread.
func heatMap(title, description, histogram, matchers string) panel {
	expr := fmt.Sprintf("sum by (le) (increase(%s_bucket{%s}[$__rate_interval]))", histogram, matchers)
	p := newPanel("heatmap", title, description, "s", 16, 10, []query{q("{{le}}", expr)})
	p.Targets[0].Format, p.Targets[0].Exemplar = "heatmap", true
	p.Options = object{
		"calculate": false, "cellGap": 1, "showValue": "never", "selectionMode": "x",
		"yAxis":        object{"axisPlacement": "left", "unit": "s"},
		"rowsFrame":    object{"layout": "auto", "value": "orders"},
		"color":        object{"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "exponent": 0.5, "steps": 64, "reverse": false},
		"exemplars":    object{"color": "rgba(255,0,255,0.7)"},
		"filterValues": object{"le": 1e-9},
		"legend":       object{"show": true},
		"tooltip":      object{"mode": "single", "yHistogram": false},
	}
	return p
}

// row is a heading.
func row(title string) panel {
	return panel{Type: "row", Title: title, width: 24, height: 1, Collapsed: new(bool), Panels: &[]panel{}}
}

// arrange numbers the panels and sets them side by side as long as a line has room.
func arrange(panels []panel) []panel {
	x, y, tallest := 0, 0, 0
	for i := range panels {
		p := &panels[i]
		if x+p.width > 24 {
			x, y, tallest = 0, y+tallest, 0
		}
		p.ID = i + 1
		p.GridPos = gridPos{H: p.height, W: p.width, X: x, Y: y}
		x, tallest = x+p.width, max(tallest, p.height)
	}
	return panels
}
