package check

import "testing"

func TestTestsAreCounted(t *testing.T) {
	for line, want := range map[string]counts{
		"DONE 12 tests in 3.112s":                                              {12, 0, 0},
		"DONE 1 test, 1 skipped in 0.2s":                                       {0, 0, 1},
		"DONE 9 tests, 1 skipped, 2 failures, 1 error in 1.2s":                 {6, 3, 1},
		"DONE 0 tests, 2 errors in 1.2s":                                       {0, 2, 0},
		"DONE 2 runs, 9 tests, 3 failures in 1m2.3s":                           {6, 3, 0},
		"a test prints: DONE 7 tests in 1s\nDONE 3 tests, 1 failure in 1.2s\n": {2, 1, 0},
		"exit status 1": {},
	} {
		if got := counted(line); got != want {
			t.Errorf("%s: %+v, want %+v", line, got, want)
		}
	}
}
