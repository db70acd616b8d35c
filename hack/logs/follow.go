package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Stream shows what is added to the sources after it was opened, and all of a source that appears later.
type Stream struct {
	format    formatter
	followers []*follower
}

// Open starts at the present end of the sources.
func Open(color bool, sources ...Source) (*Stream, error) {
	s := &Stream{format: formatter{color: color}}
	for _, source := range sources {
		s.format.width = max(s.format.width, len(source.Name))
		f := &follower{source: source}
		if err := f.skip(); err != nil {
			return nil, err
		}
		s.followers = append(s.followers, f)
	}
	return s, nil
}

// Run copies to out until ctx is done.
func (s *Stream) Run(ctx context.Context, out io.Writer) error {
	for {
		for _, f := range s.followers {
			if err := f.copy(out, s.format); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// follower reads one file that grows.
type follower struct {
	source  Source
	file    *os.File
	reader  *bufio.Reader
	partial string // of a line whose end is not written yet
}

func (w *follower) open() error {
	if w.file != nil {
		return nil
	}
	file, err := os.Open(w.source.Path)
	if err != nil {
		return err
	}
	w.file, w.reader = file, bufio.NewReader(file)
	return nil
}

func (w *follower) skip() error {
	err := w.open()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = w.file.Seek(0, io.SeekEnd)
	return err
}

func (w *follower) copy(out io.Writer, f formatter) error {
	err := w.open()
	if errors.Is(err, os.ErrNotExist) {
		return nil // not started yet
	}
	if err != nil {
		return err
	}
	for {
		text, err := w.reader.ReadString('\n')
		w.partial += text
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow the log of %s: %w", w.source.Name, err)
		}
		line := f.format(w.source, strings.TrimSuffix(w.partial, "\n"))
		w.partial = ""
		if line == "" {
			continue
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
}
