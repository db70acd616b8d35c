//go:build !linux

package stack

import (
	"fmt"
	"runtime"
	"syscall"
)

// supported returns why a stack cannot run on this operating system: it watches its processes through /proc, and the
// kernel ends them with the program that started them.
func supported() error {
	return fmt.Errorf("a system of local processes needs Linux, and this is %s: docker compose up starts the same system "+
		"in containers, hack/kind-up in Kubernetes", runtime.GOOS)
}

// endWithParent has no counterpart elsewhere; supported keeps everybody from missing it.
func endWithParent(*syscall.SysProcAttr, syscall.Signal) {}
