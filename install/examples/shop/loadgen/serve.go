package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// serve tells the counts so far to whoever asks, until stop, which waits for its end.
func (l *load) serve(listener net.Listener) (stop func() error) {
	server := &http.Server{Handler: http.HandlerFunc(l.tell), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}
}

func (l *load) tell(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(l.summary()) // an error is the caller's end
}
