package kubetest

import (
	"fmt"
	"os"
	"path/filepath"
)

// ProgramsEnv names the folder with the programs etcd and kube-apiserver.
const ProgramsEnv = "HEDDLE_KUBE_BIN"

// Programs gives the paths of etcd and kube-apiserver.
func Programs() (etcd, apiserver string, err error) {
	dir := os.Getenv(ProgramsEnv)
	if dir == "" {
		return "", "", fmt.Errorf("%s is not set; it names the folder with etcd and kube-apiserver", ProgramsEnv)
	}
	etcd, apiserver = filepath.Join(dir, "etcd"), filepath.Join(dir, "kube-apiserver")
	for _, path := range []string{etcd, apiserver} {
		if _, err := os.Stat(path); err != nil {
			return "", "", fmt.Errorf("%s=%s: %w", ProgramsEnv, dir, err)
		}
	}
	return etcd, apiserver, nil
}
