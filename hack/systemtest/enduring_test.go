package systemtest

import (
	"os"
	"strconv"

	"orderflow.internal/hack/stack"
)

// enduring is how much there is of something, most often of time: little, or much when hack/test endurance asks for it,
// which runs the tests that are named TestEnduring.
func enduring[T any](short, long T) T {
	if endures() {
		return long
	}
	return short
}

func endures() bool {
	yes, _ := strconv.ParseBool(os.Getenv(stack.EnvEndurance)) // unset means no
	return yes
}
