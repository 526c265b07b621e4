package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// moduleDir downloads a module that go.mod mod requires, checks it by go.sum sum and gives
// its folder.
func moduleDir(ctx context.Context, module string, mod, sum []byte) (string, error) {
	dir, err := os.MkdirTemp("", "heddle-module-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := writeFiles(map[string]string{filepath.Join(dir, "go.mod"): string(mod), filepath.Join(dir, "go.sum"): string(sum)}); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w: %s", module, err, out)
	}
	var got struct{ Dir string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", fmt.Errorf("download %s: %w", module, err)
	}
	return got.Dir, nil
}
