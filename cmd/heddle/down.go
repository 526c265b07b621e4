package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/heddle-mesh/heddle/install/local"
)

// projectFlags choose a project: by its file, by its name, by the file that lies here, or
// the only one that runs.
type projectFlags struct {
	file, name string
	ended      bool // the file that lies here may be of a project that has ended
}

// defaultFile is the file of a project in its folder.
const defaultFile = "heddle.yaml"

func (f *projectFlags) add(c *cobra.Command) { f.addAs(c, "f") }

// addAs is add for a command that may need -f for something else.
func (f *projectFlags) addAs(c *cobra.Command, short string) {
	c.Flags().StringVarP(&f.file, "file", short, "", "file that the project was started with")
	c.Flags().StringVarP(&f.name, "project", "p", "", "name of the project (default: that of ./"+defaultFile+", or the one that runs)")
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
	here, badFile := f.here()
	if here != nil {
		return *here, nil
	}
	running, err := local.Projects(stateHome())
	if err != nil {
		return local.Project{}, err
	}
	switch len(running) {
	case 0:
		if badFile != nil && f.ended {
			return local.Project{}, &exitError{exitUsage, badFile}
		}
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

// here gives the project of the file in the current folder, if there is one that runs. The
// error is for a file that is not right.
func (f *projectFlags) here() (*local.Project, error) {
	config, err := local.Load(defaultFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := local.OpenProject(stateHome(), config.Name)
	if err == nil && (p.Running() || f.ended && p.Started()) {
		return &p, nil
	}
	return nil, err
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
