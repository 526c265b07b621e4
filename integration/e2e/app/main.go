// Command app is what the end-to-end tests run as the programs of a mesh: a server that
// tells what reached it, and clients that tell in JSON what they were answered. It uses
// nothing of Heddle, as the programs of Heddle's users do not.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// commands are what the first argument names.
var commands = map[string]func(ctx context.Context, args []string) error{
	"serve":   serve,
	"get":     get,
	"first":   first,
	"visit":   visit,
	"load":    load,
	"resolve": resolve,
	"tcp":     tcp,
	"tls":     probeTLS,
	"peer":    probePeer,
	"raw":     probeRaw,
	"watch":   watch,
	"hold":    hold,
	"isolate": isolate,
	"links":   links,
	"pipe":    pipe,

	"connects":   connects,
	"handshakes": handshakes,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command named")
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("there is no command %q", args[0])
	}
	return command(ctx, args[1:])
}

// tell prints one line of JSON.
func tell(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }
