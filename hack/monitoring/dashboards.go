// Package monitoring makes the Grafana dashboards that the umbrella chart installs, and tests them and the alert rules.
package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
)

// Folder holds the rules and the dashboards, from the repository's root.
const Folder = "charts/orderflow/monitoring"

// Dashboards are all dashboards' JSON texts by their paths from the repository's root.
func Dashboards() (map[string][]byte, error) {
	files := make(map[string][]byte)
	for name, d := range map[string]dashboard{"saga": saga(), "bus": messageBus(), "services": services()} {
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(d); err != nil {
			return nil, err
		}
		files[Folder+"/dashboards/"+name+".json"] = text.Bytes()
	}
	return files, nil
}

// Write brings the dashboards up to date.
func Write(_ context.Context, root string) error {
	files, err := Dashboards()
	if err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func newDashboard(uid, title, description string, variables []object, panels ...panel) dashboard {
	datasource := object{
		"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1, "hide": 0,
	}
	return dashboard{
		UID: uid, Title: title, Description: description, Tags: []string{"orderflow"},
		// 39 is Grafana 10.4; newer ones bring it up to date by themselves.
		SchemaVersion: 39, Editable: true, GraphTooltip: 1, Refresh: "30s", Timezone: "browser",
		Time: object{"from": "now-1h", "to": "now"},
		Links: []object{{
			"title": "Orderflow", "type": "dashboards", "tags": []string{"orderflow"}, "asDropdown": false, "icon": "external link",
			"includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
		}},
		Templating:  object{"list": append([]object{datasource}, variables...)},
		Annotations: object{"list": []object{}},
		Panels:      arrange(panels),
	}
}

// choice is a variable that offers a label's values. Its "All" matches series without the label as well, such as those
// of a Prometheus outside Kubernetes, which knows no namespaces.
func choice(name, label, values string) object {
	return object{
		"name": name, "label": label, "type": "query", "datasource": object{"type": "prometheus", "uid": "${datasource}"},
		"query": values, "refresh": 2, "sort": 1, "hide": 0, "includeAll": true, "allValue": ".*", "multi": true,
		"current": object{"text": []string{"All"}, "value": []string{"$__all"}},
	}
}

var namespaces = choice("namespace", "Namespace", "label_values(orderflow_outbox_depth, namespace)")

func saga() dashboard {
	const duration, count = "orderflow_saga_duration_seconds", "orderflow_saga_duration_seconds_count"
	return newDashboard("orderflow-saga", "Orderflow / Saga",
		"How many orders end, how, and after how long: from placing an order to its Confirmed or Cancelled state.",
		[]object{namespaces},
		figure("Orders that end", "", "ops", 0, q("", `sum(rate(`+count+`{@ns}[$__rate_interval]))`)),
		figure("Confirmed", "Share of the orders that end", "percentunit", 0,
			q("", `sum(rate(`+count+`{@ns, orderflow_order_status="Confirmed"}[$__rate_interval])) / sum(rate(`+count+`{@ns}[$__rate_interval]))`)),
		figure("Duration p50", "", "s", 0, quantiles(duration, "@ns", "", "0.50")[0]),
		figure("Duration p99", "", "s", 1, quantiles(duration, "@ns", "", "0.99")[0]),
		figure("Pending", "Orders that wait for a stock answer", "short", 0, q("", `max(orderflow_orders_pending{@ns})`)),
		figure("Oldest Pending", "The deadline, 30 s by default, ends each; at 120 s an alert fires", "s", 120,
			q("", `max(orderflow_orders_pending_age_seconds{@ns})`)),
		lines("Ends by outcome", "", "ops",
			q("{{orderflow_order_status}} {{orderflow_order_reason}}",
				`sum by (orderflow_order_status, orderflow_order_reason) (rate(`+count+`{@ns}[$__rate_interval]))`)),
		heatMap("Duration", "Time to the final state; the dots are traces", duration, "@ns"),
		lines("Duration", "", "s", quantiles(duration, "@ns", "", "0.50", "0.95", "0.99")...),
		lines("Orders placed", "Requests to place an order, by answer: 201 has the final state, 202 is still Pending", "reqps",
			q("{{http_response_status_code}}", `sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{@ns,
				service_name="orders", http_request_method="POST", http_route="/api/orders"}[$__rate_interval]))`)),
		lines("Pending orders", "", "short", q("orders", `max(orderflow_orders_pending{@ns})`)),
	)
}

func messageBus() dashboard {
	const (
		publish = "messaging_client_operation_duration_seconds"
		handle  = "messaging_process_duration_seconds"
		queue   = "messaging_destination_name"
		key     = "messaging_rabbitmq_destination_routing_key"
		detail  = "rabbitmq_detailed_queue_"
		ours    = `@ns, queue=~"(orders|products|customers)[.].+"`
		live    = ours + `, queue!~".+[.]dlq"`
	)
	return newDashboard("orderflow-bus", "Orderflow / Bus",
		"Events on their way: from the outbox through the broker to their consumers.",
		[]object{namespaces},
		figure("Outbox", "Events that wait in outboxes", "short", 0, q("", `sum(max by (service_name) (orderflow_outbox_depth{@ns}))`)),
		figure("Oldest in an outbox", "At 60 s an alert fires", "s", 60, q("", `max(orderflow_outbox_age_seconds{@ns})`)),
		figure("In queues", "Messages that wait or are being handled", "short", 0,
			q("", `sum(max by (queue) (`+detail+`messages{`+live+`}))`)),
		figure("Dead letters", "Messages in dead-letter queues", "short", 1, q("", `sum(max by (queue) (`+detail+`messages{@ns, queue=~".+[.]dlq"}))`)),
		figure("Queues without consumer", "", "short", 1, q("", `count(max by (queue) (`+detail+`consumers{`+live+`}) == 0) or vector(0)`)),
		figure("Broker alarms", "Alarms of memory and disk: the broker takes no messages", "short", 1,
			q("", `max(rabbitmq_alarms_memory_used_watermark{@ns}) + max(rabbitmq_alarms_free_disk_space_watermark{@ns})`)),

		row("Publishing"),
		lines("Published", "Events confirmed, by routing key", "ops",
			q("{{"+key+"}}", `sum by (`+key+`) (rate(messaging_client_sent_messages_total{@ns, error_type=""}[$__rate_interval]))`)),
		lines("Publish failures", "Each is tried again from the outbox", "ops",
			q("{{service_name}} {{error_type}}", `sum by (service_name, error_type) (rate(messaging_client_sent_messages_total{@ns, error_type!=""}[$__rate_interval]))`)),
		lines("Publish time", "From sending a batch to its confirms", "s", quantiles(publish, `@ns, messaging_operation_name="publish"`, "service_name", "0.50", "0.99")...),
		lines("Outbox depth", "Events committed and not yet deleted after their confirm", "short",
			q("{{service_name}}", `max by (service_name) (orderflow_outbox_depth{@ns})`)),
		lines("Outbox age", "Of the oldest event", "s", q("{{service_name}}", `max by (service_name) (orderflow_outbox_age_seconds{@ns})`)),
		lines("Wait in the outbox", "Between an event's making and its publishing", "s",
			quantiles("orderflow_outbox_wait_seconds", "@ns", "service_name", "0.50", "0.99")...),

		row("Handling"),
		lines("Handled", "", "ops", q("{{"+queue+"}}",
			`sum by (`+queue+`) (rate(messaging_client_consumed_messages_total{@ns, error_type=""}[$__rate_interval]))`)),
		lines("Handling time p99", "Of a batch, its transaction included", "s", quantiles(handle, "@ns", queue, "0.99")...),
		lines("Lag p99", "Age of an event when its handling begins", "s", quantiles("orderflow_consumer_lag_seconds", "@ns", queue, "0.99")...),
		lines("Batch size", "Messages in one transaction, on average", "short",
			q("{{"+queue+"}}", `sum by (`+queue+`) (rate(orderflow_consumer_batch_size_sum{@ns}[$__rate_interval]))
				/ sum by (`+queue+`) (rate(orderflow_consumer_batch_size_count{@ns}[$__rate_interval]))`)),
		lines("Retries", "Failed deliveries that will be tried again", "ops",
			q("{{"+queue+"}}", `sum by (`+queue+`) (rate(orderflow_consumer_retries_total{@ns}[$__rate_interval]))`)),
		lines("Dead-lettered", "By a consumer; the broker itself does it over the delivery limit", "ops",
			q("{{"+queue+"}}", `sum by (`+queue+`) (rate(orderflow_consumer_dead_letters_total{@ns}[$__rate_interval]))`)),

		row("Broker"),
		lines("Ready", "Messages that wait in a queue", "short", q("{{queue}}", `max by (queue) (`+detail+`messages_ready{`+live+`})`)),
		lines("Being handled", "Delivered and not yet acknowledged", "short", q("{{queue}}", `max by (queue) (`+detail+`messages_unacked{`+live+`})`)),
		lines("Dead-letter queues", "", "short", q("{{queue}}", `max by (queue) (`+detail+`messages{@ns, queue=~".+[.]dlq"})`)),
		lines("Consumers", "", "short", q("{{queue}}", `max by (queue) (`+detail+`consumers{`+live+`})`)),
		lines("Connections", "1 while a service's connection is open; below: blocked by the broker", "short",
			q("{{service_name}} {{orderflow_bus_connection}}", `min by (service_name, orderflow_bus_connection) (orderflow_bus_connected{@ns})`),
			q("{{service_name}} blocked", `max by (service_name) (orderflow_bus_blocked{@ns})`)),
		lines("Queues consumed", "1 while a service handles the queue's messages, 0 while it is paused", "short",
			q("{{"+queue+"}}", `max by (`+queue+`) (orderflow_consumer_active{@ns})`)),
	)
}

func services() dashboard {
	const (
		duration = "http_server_request_duration_seconds"
		pool     = "db_client_connection_"
		route    = "http_route"
	)
	return newDashboard("orderflow-services", "Orderflow / Services",
		"Each service by itself: requests, errors and durations; its database connections; its process.",
		[]object{namespaces, choice("service", "Service", "label_values(target_info, service_name)")},
		row("Requests"),
		lines("Rate", "", "reqps", q("{{service_name}} {{http_request_method}} {{"+route+"}}",
			`sum by (service_name, http_request_method, `+route+`) (rate(`+duration+`_count{@ns, @svc}[$__rate_interval]))`)),
		lines("Errors", "Share of the requests answered with 5xx", "percentunit", q("{{service_name}}",
			`(sum by (service_name) (rate(`+duration+`_count{@ns, @svc, http_response_status_code=~"5.."}[$__rate_interval]))
				or 0 * sum by (service_name) (rate(`+duration+`_count{@ns, @svc}[$__rate_interval])))
				/ sum by (service_name) (rate(`+duration+`_count{@ns, @svc}[$__rate_interval]))`)),
		lines("Duration", "Requests that wait for an order's end (Prefer: wait) are among them", "s", quantiles(duration, "@ns, @svc", "service_name", "0.50", "0.99")...),
		lines("Duration p99 by route", "", "s", quantiles(duration, "@ns, @svc", route, "0.99")...),
		lines("Refused", "Answers 4xx", "reqps", q("{{service_name}} {{http_response_status_code}}",
			`sum by (service_name, http_response_status_code) (rate(`+duration+`_count{@ns, @svc, http_response_status_code=~"4.."}[$__rate_interval]))`)),

		row("Database connections"),
		lines("In use", "Of all replicas", "short",
			q("{{service_name}} {{db_client_connection_state}}", `sum by (service_name, db_client_connection_state) (`+pool+`count{@ns, @svc})`),
			q("{{service_name}} most", `sum by (service_name) (`+pool+`max{@ns, @svc})`)),
		lines("Waits", "Times a second that a connection was wanted and none was free", "ops",
			q("{{service_name}}", `sum by (service_name) (rate(orderflow_db_pool_waits_total{@ns, @svc}[$__rate_interval]))`),
			q("{{service_name}} given up", `sum by (service_name) (rate(`+pool+`timeouts_total{@ns, @svc}[$__rate_interval]))`)),
		lines("Wait", "On average, of the waits", "s", q("{{service_name}}",
			`sum by (service_name) (rate(orderflow_db_pool_wait_time_seconds_total{@ns, @svc}[$__rate_interval]))
				/ sum by (service_name) (rate(orderflow_db_pool_waits_total{@ns, @svc}[$__rate_interval]))`)),

		row("Process"),
		lines("CPU", "Cores", "short", q("{{service_name}}", `sum by (service_name) (rate(process_cpu_seconds_total{@ns, @svc}[$__rate_interval]))`)),
		lines("Memory", "Resident, the largest replica's", "bytes", q("{{service_name}}", `max by (service_name) (process_resident_memory_bytes{@ns, @svc})`)),
		lines("Go memory", "Used by the Go runtime, and where the next collection ends", "bytes",
			q("{{service_name}}", `max by (service_name) (sum without (go_memory_type) (go_memory_used_bytes{@ns, @svc}))`),
			q("{{service_name}} goal", `max by (service_name) (go_memory_gc_goal_bytes{@ns, @svc})`)),
		lines("Allocations", "", "Bps", q("{{service_name}}", `sum by (service_name) (rate(go_memory_allocated_bytes_total{@ns, @svc}[$__rate_interval]))`)),
		lines("Goroutines", "The replica with the most", "short", q("{{service_name}}", `max by (service_name) (go_goroutine_count{@ns, @svc})`)),
		lines("Open files", "The replica with the most", "short",
			q("{{service_name}}", `max by (service_name) (process_open_fds{@ns, @svc})`),
			q("{{service_name}} limit", `min by (service_name) (process_max_fds{@ns, @svc})`)),
	)
}
