package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

// projectFlags choose a project: by its file, by its name, or the only one that runs.
type projectFlags struct{ file, name string }

func (f *projectFlags) add(c *cobra.Command) {
	c.Flags().StringVarP(&f.file, "file", "f", "", "file that the project was started with")
	c.Flags().StringVarP(&f.name, "project", "p", "", "name of the project (default: the one that runs)")
}

// errNoProject is when nothing runs.
var errNoProject = errors.New("no project runs; start one with 'heddle up'")

func (f *projectFlags) project() (local.Project, error) {
	if f.file != "" {
		config, err := local.Load(f.file)
		if err != nil {
			return local.Project{}, &exitError{exitUsage, err}
		}
		f.name = config.Name
	}
	if f.name != "" {
		return local.OpenProject(stateHome(), f.name)
	}
	running, err := local.Projects(stateHome())
	if err != nil {
		return local.Project{}, err
	}
	switch len(running) {
	case 0:
		return local.Project{}, errNoProject
	case 1:
		return running[0], nil
	}
	var names []string
	for _, p := range running {
		names = append(names, p.Name)
	}
	return local.Project{}, &exitError{exitUsage, fmt.Errorf("several projects run; say --project with one of %s", strings.Join(names, ", "))}
}

func downCommand(e *env) *cobra.Command {
	var f projectFlags
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "down",
		Short:   "End what 'heddle up' started",
		Long:    `Ends every process of a project, programs before their proxies. State and logs stay.`,
		Example: "  heddle down\n  heddle down -f install/examples/shop/heddle.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			project, err := f.project()
			if errors.Is(err, errNoProject) {
				fmt.Fprintln(e.stderr, "nothing runs")
				return nil
			}
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return local.Down(ctx, project)
		},
	}
	f.add(c)
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait for the end")
	return c
}
