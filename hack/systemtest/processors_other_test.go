//go:build !linux

package systemtest

import "errors"

// errNotLinux is what stacks need to be set apart, as they need it to run.
var errNotLinux = errors.New("only on Linux")

func allowed() ([]int, error) { return nil, errNotLinux }

func pin(int, []int) error { return errNotLinux }
