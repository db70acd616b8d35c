package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// InUseError means that another program, with this process id, runs the stack.
type InUseError struct {
	Dir string
	PID int // 0 while the holder has not written it yet
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is run by another command (process %d)", e.Dir, e.PID)
}

// Hold keeps other commands from a stack that some run has started, until it is closed or this program ends. The error
// is os.ErrNotExist when there is no such stack and an *InUseError while another program holds it.
func Hold(root, name string) (*os.File, error) {
	dir := Options{Root: root, Name: name}.dir()
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	return hold(dir)
}

// hold takes the stack's folder for the life of this program: the kernel lets go of it however the program ends.
func hold(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		text, _ := os.ReadFile(f.Name()) // without it the holder has no name
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		err = &InUseError{Dir: dir, PID: pid}
	}
	if err == nil {
		err = os.WriteFile(f.Name(), []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
