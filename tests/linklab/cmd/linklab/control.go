//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/libcrust/libcrust/tests/linklab"
)

// control answers lines on a Unix socket.
type control struct {
	lab      *linklab.Lab
	path     string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func serveControl(lab *linklab.Lab) (*control, error) {
	directory, err := os.MkdirTemp("", "linklab-")
	if err != nil {
		return nil, err
	}
	c := &control{lab: lab, path: filepath.Join(directory, "control"), conns: map[net.Conn]struct{}{}}
	if c.listener, err = net.Listen("unix", c.path); err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	c.running.Go(c.accept)
	return c, nil
}

func (c *control) accept() {
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		if c.closed {
			_ = conn.Close()
		} else {
			c.conns[conn] = struct{}{}
			c.running.Go(func() { c.serve(conn) })
		}
		c.mu.Unlock()
	}
}

func (c *control) serve(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer, err := obey(c.lab, strings.Fields(lines.Text()))
		if err != nil {
			answer = "error: " + err.Error()
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			break
		}
	}
	_ = conn.Close()
	c.mu.Lock()
	delete(c.conns, conn)
	c.mu.Unlock()
}

func (c *control) close() error {
	c.mu.Lock()
	c.closed = true
	_ = c.listener.Close()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.running.Wait()
	return os.RemoveAll(filepath.Dir(c.path))
}

// obey does what a line says and returns the answer.
func obey(lab *linklab.Lab, words []string) (string, error) {
	if len(words) == 0 {
		return "", errors.New("say set, cut, restore, rebind, address or stats")
	}
	rest := words[1:]
	switch words[0] {
	case "set":
		if len(rest) < 2 {
			return "", errors.New("set up|down|both WORD")
		}
		return "ok", change(lab, rest[0], rest[1:]...)
	case "cut", "restore":
		where := "both"
		if len(rest) == 1 {
			where = rest[0]
		} else if len(rest) > 1 {
			return "", errors.New(words[0] + " [up|down|both]")
		}
		word := "cut=on"
		if words[0] == "restore" {
			word = "cut=off"
		}
		return "ok", change(lab, where, word)
	case "rebind":
		if len(rest) == 0 || len(rest) > 2 || (len(rest) == 2 && rest[1] != "address") {
			return "", errors.New("rebind a|b [address]")
		}
		host, err := find(lab, rest[0])
		if err != nil {
			return "", err
		}
		return "ok", host.Rebind(len(rest) == 2)
	case "address":
		if len(rest) != 1 {
			return "", errors.New("address a|b")
		}
		host, err := find(lab, rest[0])
		if err != nil {
			return "", err
		}
		return host.Public().String(), nil
	case "stats":
		return stats(lab)
	}
	return "", fmt.Errorf("there is no %q; there are set, cut, restore, rebind, address and stats", words[0])
}

func find(lab *linklab.Lab, name string) (*linklab.Host, error) {
	if host := lab.Host(name); host != nil {
		return host, nil
	}
	return nil, fmt.Errorf("there is no host %q", name)
}

func change(lab *linklab.Lab, where string, words ...string) error {
	link := lab.Host("a") // whose link is the one between them
	switch where {
	case "up":
		return link.ChangeUp(words...)
	case "down":
		return link.ChangeDown(words...)
	case "both":
		return link.Change(words...)
	}
	return fmt.Errorf("%q is none of up, down and both", where)
}

func stats(lab *linklab.Lab) (string, error) {
	var all struct {
		Up   linklab.Counters `json:"up"`
		Down linklab.Counters `json:"down"`
	}
	all.Up, all.Down = lab.Host("a").Counters()
	text, err := json.Marshal(all)
	return string(text), err
}

// tell sends a line to the laboratory around and prints the answer.
func tell(words []string, out io.Writer) error {
	path := os.Getenv("LINKLAB_CONTROL")
	if path == "" {
		return errors.New("there is no laboratory around: tell is for commands that linklab run started")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, strings.Join(words, " ")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if problem, bad := strings.CutPrefix(answer, "error: "); bad {
		return errors.New(strings.TrimSpace(problem))
	}
	_, err = io.WriteString(out, answer)
	return err
}
