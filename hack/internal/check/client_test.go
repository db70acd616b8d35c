package check

import "testing"

func TestCounts(t *testing.T) {
	for name, test := range map[string]struct {
		text           string
		passed, failed int
	}{
		"Vitest":                  {" Test Files  11 passed (11)\n      Tests  130 passed (130)\n   Duration  27.29s\n", 130, 0},
		"Vitest, some failed":     {" Test Files  1 failed | 10 passed (11)\n      Tests  3 failed | 127 passed (130)\n", 127, 3},
		"Playwright":              {"  ✓  1 [desktop] › 2 passed\n\n  48 passed (2.1m)\n", 48, 0},
		"Playwright, some failed": {"  2 failed\n    [phone] › e2e/order.spec.ts:3:1 › order\n  1 skipped\n  46 passed (5.3m)\n", 46, 2},
		"none":                    {"No test files found\n", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lastCount(countPassed, test.text); got != test.passed {
				t.Errorf("%d passed, want %d", got, test.passed)
			}
			if got := lastCount(countFailed, test.text); got != test.failed {
				t.Errorf("%d failed, want %d", got, test.failed)
			}
		})
	}
}
