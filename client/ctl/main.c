/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* iommubrokerctl: what iommubrokerd does, for operators. See iommubrokerctl(1). */

#include "ctl/command.h"

int main(int argc, char **argv)
{
	return ctl_main(argc, argv);
}
