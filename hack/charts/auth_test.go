package charts

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Production is closed unless somebody says that it shall be open.
func TestProductionWantsAnIssuer(t *testing.T) {
	values := filepath.Join(absolute(t), "charts/orderflow", production)
	if _, err := Template(t.Context(), root, "orderflow", "--values", values); err == nil ||
		!strings.Contains(err.Error(), "set global.auth.issuer") {
		t.Errorf("without an issuer: %v", err)
	}
	open := render(t, "orderflow", "--values", values, "--set", "global.auth.open=true")
	closed := render(t, "orderflow", Values(values)...)
	for _, name := range []string{"gateway", "orders", "products", "customers", "deadletters", "audit"} {
		d := closed.get(t, "Deployment/orderflow-"+name)
		if got := env(d)["AUTH_ISSUER"]; got != "https://id.example.com/realms/shop" {
			t.Errorf("%s has the issuer %q", name, got)
		}
		if got := env(open.get(t, "Deployment/orderflow-"+name))["AUTH_ISSUER"]; got != "" {
			t.Errorf("%s has the issuer %q although all is open", name, got)
		}
		// The way to the issuer is open, and only to its port.
		policy := closed.get(t, "NetworkPolicy/orderflow-"+name)
		if !slices.ContainsFunc(policy.objects("spec", "egress"), func(rule object) bool {
			ports := rule.objects("ports")
			return rule["to"] == nil && len(ports) == 1 && ports[0]["port"] == 443
		}) {
			t.Errorf("%s cannot reach the issuer", name)
		}
	}
	// The browser signs in there, which the pages' server has to permit.
	for want, r := range map[string]rendered{"https://id.example.com/realms/shop": closed, "": open} {
		if got := env(r.get(t, "Deployment/orderflow-client"))["AUTH_ISSUER"]; got != want {
			t.Errorf("the pages may talk to %q, want %q", got, want)
		}
	}
}

// Where policies are enforced behind a Service, its pods' port is what counts.
func TestAnIssuerInTheClusterIsReachedAtItsPods(t *testing.T) {
	r := render(t, "orderflow", "--set", "global.networkPolicy.enabled=true,global.networkPolicy.issuerPorts={8443},"+
		"global.auth.issuer=https://identity.front.svc")
	for _, name := range []string{"gateway", "orders", "products", "customers", "deadletters"} {
		if !slices.ContainsFunc(r.get(t, "NetworkPolicy/orderflow-"+name).objects("spec", "egress"), func(rule object) bool {
			ports := rule.objects("ports")
			return len(ports) == 2 && ports[0]["port"] == 8443 && ports[1]["port"] == 443
		}) {
			t.Errorf("%s cannot reach the issuer's pods", name)
		}
	}
}

// helm test asks only for what it may have: it gets no token.
func TestHelmTestNeedsNoToken(t *testing.T) {
	for issuer, orders := range map[string]bool{"": true, "https://id.example.com": false} {
		pod := render(t, "orderflow", "--set", "global.auth.issuer="+issuer).get(t, "Pod/orderflow-test-order")
		script := fmt.Sprint(pod.objects("spec", "containers")[0]["command"])
		if got := strings.Contains(script, "call POST /orders"); got != orders {
			t.Errorf("issuer %q: it places an order: %t", issuer, got)
		}
		if got := strings.Contains(script, "call GET /products"); got == orders {
			t.Errorf("issuer %q: it reads the catalog: %t", issuer, got)
		}
	}
}

// A client's secret comes as a file, so that it can change without a restart.
func TestAClientsSecretIsAFile(t *testing.T) {
	d := render(t, "orderflow", Values(filepath.Join(absolute(t), "charts/orderflow", production))...).
		get(t, "Deployment/orderflow-audit")
	for name, want := range map[string]string{
		"AUTH_CLIENT_ID_FILE": "/etc/secrets/client/id", "AUTH_CLIENT_SECRET_FILE": "/etc/secrets/client/secret",
	} {
		if got := env(d)[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	volumes := d.objects("spec", "template", "spec", "volumes")
	if len(volumes) != 1 || volumes[0].text("secret", "secretName") != "orderflow-audit-client" {
		t.Errorf("volumes %v", volumes)
	}
}

// An issuer with a certificate of an authority of one's own is trusted by all that ask it, and by nothing else. The
// pages' server only names it to browsers.
func TestAnAuthorityOfOnesOwnIsTrusted(t *testing.T) {
	r := render(t, "orderflow", append(Values(filepath.Join(absolute(t), "charts/orderflow", production)),
		"--set", "global.auth.caSecret=company-ca")...)
	for _, d := range r.kinds("Deployment") {
		name := d.text("metadata", "name")
		want := env(d)["AUTH_ISSUER"] != "" && name != "orderflow-client"
		mounted := slices.ContainsFunc(d.objects("spec", "template", "spec", "volumes"), func(v object) bool {
			return v.text("name") == "issuer-ca" && v.text("secret", "secretName") == "company-ca"
		})
		container := d.objects("spec", "template", "spec", "containers")[0]
		at := slices.ContainsFunc(container.objects("volumeMounts"), func(m object) bool {
			return m.text("name") == "issuer-ca" && m.text("mountPath") == env(d)["SSL_CERT_DIR"]
		})
		if mounted != want || at != want {
			t.Errorf("%s: mounted %t, at SSL_CERT_DIR %t, want %t", name, mounted, at, want)
		}
	}
}

// The provider whose passwords everybody knows runs on a laptop and nowhere else.
func TestTheDevelopmentProviderIsNotForProduction(t *testing.T) {
	folder := filepath.Join(absolute(t), "charts/orderflow")
	dev := []string{"--values", filepath.Join(folder, "values-kind.yaml"),
		"--values", filepath.Join(folder, "values-kind-auth.yaml")}
	kind := render(t, "orderflow", append(dev, "--set", "global.networkPolicy.enabled=true")...)
	callers := fmt.Sprint(kind.get(t, "NetworkPolicy/orderflow-idp")["spec"])
	asking := 0
	for _, deployment := range kind.kinds("Deployment") {
		name := strings.TrimPrefix(deployment.text("metadata", "name"), "orderflow-")
		got, asks := env(deployment)["AUTH_KEYS_URL"]
		if !asks {
			continue
		}
		asking++
		if got != "http://orderflow-idp:5180/keys" || !strings.Contains(callers, "app.kubernetes.io/name:"+name+"]") {
			t.Errorf("%s reads keys from %q, where these are let in: %s", name, got, callers)
		}
	}
	if asking < 6 {
		t.Errorf("only %d of the deployments ask for keys", asking)
	}
	if got := env(kind.get(t, "Deployment/orderflow-idp"))["IDP_ISSUER"]; got != "http://localhost:5180" {
		t.Errorf("the issuer is %q", got)
	}
	if got := env(kind.get(t, "Deployment/orderflow-client"))["AUTH_ISSUER"]; got != "http://localhost:5180" {
		t.Errorf("the pages may talk to %q", got)
	}
	args := append(Values(filepath.Join(folder, production)), "--set", "idp.enabled=true")
	if _, err := Template(t.Context(), root, "orderflow", args...); err == nil ||
		!strings.Contains(err.Error(), "idp is for development") {
		t.Errorf("production renders it: %v", err)
	}
}
