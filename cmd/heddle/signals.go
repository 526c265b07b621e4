package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals gives a context that ends at the first SIGINT or SIGTERM, and a channel that is
// closed at the second, which comes from somebody who will not wait for an end in good
// order. A third ends this process as it is.
func signals() (ctx context.Context, hurry <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	// Room for both: a signal that finds none is lost.
	received, hurried := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		for _, act := range []func(){cancel, func() { close(hurried) }} {
			select {
			case <-received:
				act()
			case <-ended:
				return
			}
		}
		signal.Stop(received)
	}()
	return ctx, hurried, func() {
		signal.Stop(received)
		close(ended)
		cancel()
	}
}
