// Command api is the example shop's REST API: documents of a PostgreSQL database as JSON.
//
//	GET /                  a document, another one each time
//	GET /documents         all of them
//	GET /documents/{id}    one
//	PUT /documents/{id}    a new one, or a new text for it
//	DELETE /documents/{id} no longer
//	GET /version           v1 or v2
//	GET /healthz           whether this process serves; the database may be away
//	GET /readyz            whether the database answers, too
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/heddle-mesh/heddle/install/examples/shop/trace"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "`ADDRESS:PORT` to serve at")
	version := flag.String("version", "v1", "what /version answers")
	database := flag.String("database", "postgres://shop@db:5432/shop", "`URL` of the database")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, log, *listen, *version, *database); err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

// run serves until the context is done, and then lets requests end.
func run(ctx context.Context, log *slog.Logger, listen, version, url string) error {
	shutdown, err := trace.Start(ctx, log)
	if err != nil {
		return err
	}
	defer shutdown()
	documents, err := openDocuments(ctx, url)
	if err != nil {
		return err
	}
	defer documents.close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           newHandler(documents, version, log),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10,
		WriteTimeout: queryTimeout + 10*time.Second,
		// Longer than the hour for which Envoy keeps a connection: if we closed it first, a
		// request might be on its way.
		IdleTimeout: 2 * time.Hour,
	}
	ended := make(chan error, 1)
	go func() {
		<-ctx.Done()
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		ended <- server.Shutdown(rest)
	}()
	log.Info("serving", "address", l.Addr().String(), "version", version)
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-ended
}
