package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// An InvalidError is Envoy's reason for not accepting a configuration.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return "envoy refuses the configuration: " + e.Reason }

// Validate asks the Envoy at path bin whether it accepts a bootstrap, given as
// JSON. A refusal is an *InvalidError whose reason is the one sentence of
// Envoy's log that matters. A deprecated field counts as a refusal too, as the
// next Envoy will drop it.
func Validate(ctx context.Context, bin string, config []byte) error {
	f, err := os.CreateTemp("", "heddle-validate-*.json") // 0600
	if err != nil {
		return fmt.Errorf("validate with Envoy: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(config)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("validate with Envoy: %w", err)
	}
	cmd := exec.CommandContext(ctx, bin, "--mode", "validate", "--config-path", f.Name(),
		"--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("validate with Envoy: %w", context.Cause(ctx))
	}
	reason, deprecated := reduce(log.String(), f.Name())
	var exit *exec.ExitError
	switch {
	case err == nil && deprecated == "":
		return nil
	case err == nil:
		return &InvalidError{Reason: deprecated}
	case reason != "":
		return &InvalidError{Reason: reason}
	case errors.As(err, &exit):
		return fmt.Errorf("validate with Envoy: %w: %.300s", err, strings.TrimSpace(log.String()))
	}
	return fmt.Errorf("validate with Envoy: %w", err)
}
