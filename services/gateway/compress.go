package main

import (
	"net/http"

	// A gzip writer of this library takes a fraction of the time of the standard
	// library's, and its handler knows what not to compress.
	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
)

const (
	// minCompressed is the size from which on it pays, in bytes: one packet.
	minCompressed = 1400

	// maxCompressing bounds the memory of the compressors: each holds up to 1 MB
	// until its client has read the answer.
	maxCompressing = 8
)

// compress compresses JSON that is read, for clients that accept gzip, while
// there are slots for it.
func compress(next http.Handler, slots chan struct{}) http.Handler {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(minCompressed), gzhttp.CompressionLevel(gzip.BestSpeed),
		gzhttp.EnableZstd(false), gzhttp.ContentTypes([]string{"application/json"}))
	if err != nil {
		panic(err) // the options are the same each time
	}
	compressing := wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			compressing.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}
