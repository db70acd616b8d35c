package systemtest

import (
	"os"
	"strconv"
	"time"

	"orderflow.internal/hack/stack"
)

// enduring is how long something lasts: short, or long when hack/test endurance asks for it, which runs the tests that
// are named TestEnduring.
func enduring(short, long time.Duration) time.Duration {
	if yes, _ := strconv.ParseBool(os.Getenv(stack.EnvEndurance)); yes { // unset means no
		return long
	}
	return short
}
