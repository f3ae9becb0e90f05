/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The terminal while top runs. Signals are blocked before gRPC starts its threads, which inherit
 * that, and taken in top_terminal_wait(): so the terminal is as it was whichever ends it.
 */

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "ctl/top.h"

#define LINES_DEFAULT 24
#define SHOW_OTHER    "\x1b[?1049h\x1b[?25l" /* the other screen, without a cursor */
#define SHOW_FORMER   "\x1b[?25h\x1b[?1049l"

static struct {
	bool open;
	int signals; /* signalfd */
	int ended_by;
	struct termios former;
} terminal;

static void say(const char *text, size_t n)
{
	/* Whoever took the terminal away sees nothing of it anyway. */
	if (write(STDOUT_FILENO, text, n) < 0)
		return;
}

static void take_over(void)
{
	struct termios mine = terminal.former;

	mine.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &mine);
	say(SHOW_OTHER, sizeof(SHOW_OTHER) - 1);
}

static void give_back(void)
{
	say(SHOW_FORMER, sizeof(SHOW_FORMER) - 1);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.former);
}

static void fill(sigset_t *set)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};

	sigemptyset(set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(set, numbers[i]);
}

bool top_terminal_open(void)
{
	sigset_t set;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) ||
	    tcgetattr(STDIN_FILENO, &terminal.former) != 0)
		return false;
	fill(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	terminal.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (terminal.signals < 0)
		return false;
	terminal.open = true;
	atexit(top_terminal_close);
	take_over();
	return true;
}

void top_terminal_close(void)
{
	sigset_t set;

	if (!terminal.open)
		return;
	terminal.open = false;
	give_back();
	close(terminal.signals);
	fill(&set);
	if (terminal.ended_by != 0)
		raise(terminal.ended_by); /* whoever waits for us sees what it was */
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

size_t top_terminal_lines(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0)
		return LINES_DEFAULT;
	return size.ws_row;
}

/* 0 or -1, as top_terminal_wait(). */
static int take_signal(void)
{
	struct signalfd_siginfo info;

	if (read(terminal.signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return 0;
	switch (info.ssi_signo) {
	case SIGTSTP:
		give_back();
		raise(SIGSTOP);
		take_over();
		return 0;
	case SIGCONT:
	case SIGWINCH:
		return 0;
	default:
		terminal.ended_by = (int)info.ssi_signo;
		return -1;
	}
}

int top_terminal_wait(uint64_t milliseconds)
{
	struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
			       {.fd = terminal.signals, .events = POLLIN}};
	unsigned char key;

	if (poll(fds, 2, (int)milliseconds) <= 0)
		return 0;
	if (fds[1].revents != 0)
		return take_signal();
	/* The terminal is gone. */
	if (read(STDIN_FILENO, &key, 1) != 1)
		return -1;
	return key;
}
