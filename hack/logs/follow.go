package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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
		last := ctx.Err() != nil // what was written before the end is shown
		if err := s.copy(out); err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// copy shows what is new, in the order of time as far as the lines tell it.
func (s *Stream) copy(out io.Writer) error {
	var lines []line
	for _, f := range s.followers {
		more, err := f.read(s.format)
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	for _, l := range lines {
		if _, err := fmt.Fprintln(out, l.text); err != nil {
			return err
		}
	}
	return nil
}

// line is one to show. A line without a time of its own has that of the one before it in its file.
type line struct {
	at   time.Time
	text string
}

// follower reads one file that grows.
type follower struct {
	source  Source
	file    *os.File
	reader  *bufio.Reader
	partial string    // of a line whose end is not written yet
	at      time.Time // of the last line that told it
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

func (w *follower) read(f formatter) (lines []line, err error) {
	err = w.open()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // not started yet
	}
	if err != nil {
		return nil, err
	}
	for {
		text, err := w.reader.ReadString('\n')
		w.partial += text
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, fmt.Errorf("follow the log of %s: %w", w.source.Name, err)
		}
		shown, at := f.format(w.source, w.partial)
		w.partial = ""
		if !at.IsZero() {
			w.at = at
		}
		if shown != "" {
			lines = append(lines, line{w.at, shown})
		}
	}
}
