package nodejs

import "testing"

func TestRecent(t *testing.T) {
	for version, want := range map[string]bool{
		"v20.19.2": true, "v22.0.1": true, "v20.18.3": false, "v18.20.4": false, "v9.99.0": false,
		"": false, "v22": false, "node": false,
	} {
		if (recent(version) == nil) != want {
			t.Errorf("recent(%q) = %t", version, !want)
		}
	}
}
