package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatBreaksClientsIsRefused(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "services", "gateway", "openapi.yaml")
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		old, new string // the first of old becomes new
		want     string // part of the error, "" when no client breaks
	}{
		"the same": {"", "", ""},
		"a text":   {"summary: Place an order", "summary: Order something", ""},
		"one more answer": {"required: [orderId, customerId, items, status,",
			"required: [orderId, customerId, items, status, gift,", ""},
		"one more parameter": {"        - $ref: '#/components/parameters/Limit'\n",
			"        - $ref: '#/components/parameters/Limit'\n        - {name: gift, in: query, schema: {type: boolean}}\n", ""},
		"a path is gone":  {"  /orders/{orderId}/cancel:", "  /orders/{orderId}/undo:", "api-path-removed"},
		"a field is gone": {"        reserved:\n", "        elsewhere:\n", "response-required-property-removed"},
		"a field is demanded": {"required: [name, priceCents, stock]", "required: [name, priceCents, stock, currency]",
			"request-property-became-required"},
		"a bound is narrower": {"maximum: 10000\n", "maximum: 1000\n", "request-property-max-decreased"},
		"one more state": {"enum: [Pending, Confirmed, Cancelled]", "enum: [Pending, Confirmed, Cancelled, Shipped]",
			"response-property-enum-value-added"},
		"another kind of body": {"application/problem+json:", "application/json:", "response-media-type-name-generalized"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(string(document), test.old, test.new, 1)
			if changed == string(document) && test.old != "" {
				t.Fatalf("the document has no %q", test.old)
			}
			edited := filepath.Join(t.TempDir(), "openapi.yaml")
			if err := os.WriteFile(edited, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			err := unbroken(t.Context(), root, file, edited)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestToAskForATokenBreaksNobody(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	const document = `
openapi: 3.0.3
info: {title: Pets, version: 1.0.0}
components: {securitySchemes: {oidc: {type: http, scheme: bearer}}}
paths: {/pets: {get: {security: [%], responses: {'204': {description: None}}}}}
`
	var files []string
	for _, security := range []string{"{}", "{oidc: []}"} {
		files = append(files, filepath.Join(t.TempDir(), "openapi.yaml"))
		if err := os.WriteFile(files[len(files)-1], []byte(strings.Replace(document, "%", security, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unbroken(t.Context(), root, files[0], files[1]); err != nil {
		t.Error(err)
	}
}
