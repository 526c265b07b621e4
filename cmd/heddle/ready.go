package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/proxy/sidecar"
)

// awaitCommand is the hook that the kubelet runs in a sidecar's container before it starts
// the application's.
func awaitCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use:    "await-sidecar",
		Short:  "Wait until the sidecar of this pod carries its traffic",
		Hidden: true,
		Args:   args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			// A little longer than the sidecar's own count, so that it knows what is missing when
			// the kubelet stops it for our failure.
			ctx, cancel := context.WithTimeout(c.Context(), sidecar.Hold+2*time.Second)
			defer cancel()
			return awaitReady(ctx, fmt.Sprintf("http://127.0.0.1:%d/ready?wait=20s", sidecar.PodPort))
		},
	}
}

// awaitReady asks until the answer is 200. The server may not be there yet.
func awaitReady(ctx context.Context, url string) error {
	for {
		last := askReady(ctx, url)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the sidecar is not ready: %w", last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func askReady(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	why, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(why)))
	}
	return err
}
