// Command reload is what a service's container starts with under Tilt: it runs the service's binary and restarts it
// when another one has been copied over it. The image has no shell and no tar, which Tilt needs to copy files into a
// container, so this plays tar as well, when called by that name.
package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	var err error
	if filepath.Base(os.Args[0]) == "tar" {
		// Tilt's only call is tar -C / -x -f -.
		err = extract(os.Stdin, "/")
	} else if len(os.Args) != 3 {
		err = errors.New("usage: reload <binary of the image> <place of newer ones>")
	} else {
		err = supervise(os.Args[1], os.Args[2])
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1)) // -1 stands for a signal
	case err != nil:
		fmt.Fprintln(os.Stderr, "reload:", err)
		os.Exit(1)
	}
}

// supervise runs the newer binary, or the image's while there is none, until it ends or a signal ends it. Whenever the
// newer one changes, what runs is asked to stop and the new one started.
func supervise(original, newer string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	for {
		binary, version := original, modified(newer)
		if !version.IsZero() {
			binary = newer
		}
		cmd := exec.CommandContext(context.Background(), binary) // ends by signals alone, see watch
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		again, err := watch(cmd.Process, ended, signals, func() bool { return !modified(newer).Equal(version) })
		if !again {
			return err
		}
	}
}

// watch returns when the process has ended; again is true when that was because there is a newer binary.
func watch(process *os.Process, ended <-chan error, signals <-chan os.Signal,
	changed func() bool) (again bool, err error) {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return again, err
		case s := <-signals:
			again = false
			if err := process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return false, err
			}
		case <-look.C:
			if again || !changed() {
				continue
			}
			again = true
			if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return false, err
			}
		}
	}
}

// modified is when a file was last put in place; zero when there is none.
func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// extract puts the archive's files below a folder, each in one step: a running binary cannot be written to, only
// replaced.
func extract(archive io.Reader, folder string) error {
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(folder, filepath.Clean("/"+header.Name))
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = replace(path, r, header.FileInfo().Mode().Perm())
		default:
			err = fmt.Errorf("%s: neither a file nor a folder", header.Name)
		}
		if err != nil {
			return err
		}
	}
}

func replace(path string, content io.Reader, mode os.FileMode) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = io.Copy(file, content)
	if err := errors.Join(err, file.Chmod(mode), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
