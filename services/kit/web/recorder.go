package web

import "net/http"

// recorder remembers the status of an answer. Everything else about the
// ResponseWriter stays reachable: Flush here, the rest (deadlines, hijacking)
// for http.ResponseController through Unwrap.
type recorder struct {
	http.ResponseWriter
	status int // 0: nothing sent yet
}

func (w *recorder) WriteHeader(status int) {
	// 1xx come before the answer, except 101, which is it.
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController looks for before Unwrap.
func (w *recorder) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// findRecorder looks for the recorder under whatever wraps it.
func findRecorder(w http.ResponseWriter) *recorder {
	for {
		switch v := w.(type) {
		case *recorder:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}
