package local

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// inUse says of an address that cannot be opened who has it.
func inUse(address string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("open %s: %w", address, err)
	}
	if holder := holder(address); holder != "" {
		return fmt.Errorf("%s is in use by %s; stop it, or publish another port", address, holder)
	}
	return fmt.Errorf("%s is in use by another user's process; stop it, or publish another port", address)
}

// holder names the process that listens on an address, by proc(5): the socket's inode in
// net/tcp, then the process with a descriptor of that inode. It is "" where the process
// is another user's and we are not root.
func holder(address string) string {
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return ""
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode := listeningInode(table, uint16(port)); inode != "" {
			if name := processOf("socket:[" + inode + "]"); name != "" {
				return name
			}
		}
	}
	return ""
}

// listeningInode finds the inode of the socket that listens on a port.
func listeningInode(table string, port uint16) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	want := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], want) && fields[3] == "0A" { // TCP_LISTEN
			return fields[9]
		}
	}
	return ""
}

// processOf finds the process with a descriptor that links to target.
func processOf(target string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == target {
			pid := strings.Split(link, "/")[2]
			command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			words := strings.Split(string(command), "\x00")
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(strings.Join(words[:min(2, len(words))], " ")), pid)
		}
	}
	return ""
}
