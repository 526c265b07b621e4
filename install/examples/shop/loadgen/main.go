// Command loadgen calls URLs of the example shop at a constant rate, begins a trace with
// each call, and tells every ten seconds how it went. With --for it is a test: it ends by
// itself, and with exit code 1 if a call failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/heddle-mesh/heddle/install/examples/shop/trace"
)

func main() {
	var c config
	flag.Var(&c.urls, "url", "`URL` to call; may be repeated, and weighted as 3*URL")
	flag.Float64Var(&c.rate, "rate", 5, "calls per second, at most 1000")
	flag.DurationVar(&c.every, "report", 10*time.Second, "time between two lines")
	flag.DurationVar(&c.length, "for", 0, "end after this `TIME`; 0 means at SIGTERM")
	flag.StringVar(&c.listen, "listen", "", "`ADDRESS:PORT` to tell the counts at, as --json writes them; empty for none")
	flag.BoolVar(&c.json, "json", false, "write one JSON object at the end and no lines")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed, err := run(ctx, c, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(2)
	}
	if failed > 0 && c.length > 0 {
		os.Exit(1)
	}
}

// config is the command line.
type config struct {
	urls   urls
	rate   float64 // calls per second
	every  time.Duration
	length time.Duration // 0: no end
	json   bool
	listen string
}

// run calls until the context or the time is done and returns how many calls failed.
func run(ctx context.Context, c config, out io.Writer) (failed int, err error) {
	if !(c.rate > 0 && c.rate <= 1000) || c.every <= 0 || c.length < 0 {
		return 0, errors.New("the rate must be above 0 and at most 1000, the time between lines above 0")
	}
	if len(c.urls) == 0 {
		c.urls = urls{"http://frontend/api/"}
	}
	if c.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.length)
		defer cancel()
	}
	shutdown, err := trace.Start(ctx, slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if err != nil {
		return 0, err
	}
	defer shutdown()
	calls := time.NewTicker(time.Duration(float64(time.Second) / c.rate))
	defer calls.Stop()
	lines := time.NewTicker(c.every)
	defer lines.Stop()
	l := newLoad(c.urls...)
	if c.listen != "" {
		listener, err := net.Listen("tcp", c.listen)
		if err != nil {
			return 0, err
		}
		stop := l.serve(listener)
		defer func() { err = errors.Join(err, stop()) }()
	}
	if !c.json {
		l.run(ctx, calls.C, lines.C, out)
		return l.total.failed, nil
	}
	l.run(ctx, calls.C, lines.C, io.Discard)
	return l.total.failed, json.NewEncoder(out).Encode(l.summary())
}
